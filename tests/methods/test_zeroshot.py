"""Zero-shot: the answers are those of the untouched model, whatever it is shown."""

import torch

from clbench.methods.zeroshot import ZeroShot
from clbench.testing.driving import run_task


def test_stays_the_pretrained_model(tiny_clip, tiny_task_data):
    task, data = tiny_task_data(0)
    expected = tiny_clip.logits(data.images, tiny_clip.class_features(task.classes))
    method = ZeroShot()
    method.prepare(tiny_clip)
    losses = run_task(method, task, data, steps=2)

    assert losses == []
    torch.testing.assert_close(method.classify(data.images, task.classes), expected)


def test_has_nothing_to_train_or_store(tiny_clip):
    method = ZeroShot()
    method.prepare(tiny_clip)
    cost = method.footprint()
    assert (cost.trainable, cost.added, cost.stored, cost.external) == (0, 0, 0, 0)
