"""Full fine-tuning: everything but the logit scale moves."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.core.errors import ClbenchError
from clbench.methods.finetune import Finetune
from clbench.testing.driving import first_batch, run_task


def test_every_parameter_but_the_logit_scale_moves(tiny_clip, tiny_task_data):
    before = {name: p.detach().clone() for name, p in tiny_clip.named_parameters()}
    method = Finetune()
    method.prepare(tiny_clip)
    run_task(method, *tiny_task_data(0), steps=2)

    still = {name for name, p in tiny_clip.named_parameters() if torch.equal(p, before[name])}
    assert still == {"network.logit_scale"}


def test_loss_is_smoothed_cross_entropy_over_the_tasks_prompts(tiny_clip, tiny_task_data):
    _, data = tiny_task_data(0)
    batch = first_batch(data)
    method = Finetune(label_smoothing=0.3)
    method.prepare(tiny_clip)

    image, text = tiny_clip.encode_image(batch.images), tiny_clip.encode_text(batch.prompts)
    log_p = (tiny_clip.logit_scale.exp() * image @ text.T).log_softmax(1)
    targets = 0.7 * F.one_hot(batch.labels, 3) + 0.3 / 3
    torch.testing.assert_close(
        method.loss(batch)["classification"], -(targets * log_p).sum(1).mean()
    )


def test_refuses_impossible_smoothing():
    with pytest.raises(ClbenchError, match=r"label_smoothing=1.0: input should be less than 1"):
        Finetune(label_smoothing=1.0)
