"""Joint training: all tasks at once, one model for every row, and no rank."""

import json

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.core.data import Batch
from clbench.methods.joint import Joint
from clbench.testing.toys import make_tasks
from clbench.verify import verify
from tests.small_runs import run_small, write_tasks


@pytest.mark.parametrize("among", ["task", "all"])
def test_images_are_told_from_the_classes_of_their_task_or_from_all(tiny_clip, among):
    (_, first), (_, second) = make_tasks(3, 4)
    method = Joint(among=among, label_smoothing=0.1)
    method.prepare(tiny_clip)
    images = torch.cat([first.images[:6], second.images[:6]])
    labels = torch.cat([first.labels[:6], second.labels[:6] + 3])
    prompts, tasks = torch.cat([first.prompts, second.prompts]), torch.tensor([0] * 3 + [1] * 4)
    found = method.loss(Batch(images, labels, prompts, tasks))["classification"]

    logits = tiny_clip.logits(images, tiny_clip.encode_text(prompts))
    if among == "all":
        expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    else:
        losses = [
            F.cross_entropy(logits[:6, :3], labels[:6], label_smoothing=0.1),
            F.cross_entropy(logits[6:, 3:], labels[6:] - 3, label_smoothing=0.1),
        ]
        expected = torch.stack(losses).mean()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_trains_once_for_all_steps_and_tests_the_same_model_in_every_row(tmp_path):
    tasks = write_tasks(tmp_path / "tasks", tasks=3)
    steps = {"default": 12, "task1": 20}
    options = {"train__steps": steps, "train__lr": {"default": 1e-3, "task0": 1.0}}
    result = run_small("joint", tasks, tmp_path / "runs", **options)
    rows = result.matrix.values
    assert (rows[1:] == rows[1]).all()
    assert rows[1].mean() > rows[0].mean()
    assert result.cost.steps == 44
    assert result.footprint.trainable > 0
    (folder,) = {path.parent for path in (tmp_path / "runs").rglob("result.json")}
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(record["task"], record["step"]) for record in records] == [(1, 20), (1, 40), (1, 44)]
    assert all(record["lr"] <= 1e-3 for record in records)
    unsound = [finding for finding in verify(folder) if not finding.sound]
    assert unsound == []
