"""Fixtures shared by all tests: a tiny CLIP, tasks that can be told apart, fixed seeds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.clip.model import CLIP
from clbench.core.data import Batch, ReferencePairs
from clbench.core.task import ClassTexts, Task

CONTEXT = 20
VOCABULARY = 512
IMAGE_SIZE = 32
WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"
"""Of the form that W&B's keys have, and recognisable where it should not be."""


class WordTokenizer:
    """One token per word, by a checksum; any text has tokens and nothing is loaded."""

    vocab_size = VOCABULARY
    sot_token_id = VOCABULARY - 2
    eot_token_id = VOCABULARY - 1

    def __init__(self, context_length: int = CONTEXT) -> None:
        self.context_length = context_length

    def __call__(self, texts: list[str]) -> Tensor:
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = [1 + zlib.crc32(w.encode()) % (VOCABULARY - 3) for w in text.lower().split()]
            ids = [self.sot_token_id, *words[: self.context_length - 2], self.eot_token_id]
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens


def make_clip(seed: int = 0) -> CLIP:
    """A random CLIP of two small blocks per encoder, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = open_clip.CLIP(
            embed_dim=32,
            vision_cfg={
                "image_size": IMAGE_SIZE,
                "patch_size": 8,
                "width": 64,
                "layers": 2,
                "head_width": 32,
            },
            text_cfg={
                "context_length": CONTEXT,
                "vocab_size": VOCABULARY,
                "width": 64,
                "heads": 2,
                "layers": 2,
            },
        )
    return CLIP(network, WordTokenizer(), [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], "tiny")


@dataclass
class FakeTaskData:
    """A training set in memory that offers its own images as reference pairs.

    Attributes:
        images: ``(N, 3, H, W)`` uint8.
        labels: ``(N,)``.
        prompts: ``(C, L)`` tokens.
        captions: C training prompts.
        asked: sources of reference pairs that were asked for.
    """

    images: Tensor
    labels: Tensor
    prompts: Tensor
    captions: tuple[str, ...]
    asked: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(self), batch_size):
            chosen = slice(start, start + batch_size)
            yield Batch(self.images[chosen], self.labels[chosen], self.prompts)

    def reference_pairs(self, source: str, count: int, seed: int) -> ReferencePairs:
        self.asked.append(source)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        return ReferencePairs(self.images[order], self.captions, self.labels[order], source)


def make_task(index: int, *, classes: int = 3, size: int = 24) -> tuple[Task, FakeTaskData]:
    """A task whose classes are fixed random patterns under weak noise.

    Tasks of different index have other patterns, class names and templates.
    """
    random = torch.Generator().manual_seed(1000 + index)
    names = [f"kind{index}{chr(97 + c)}" for c in range(classes)]
    texts = ClassTexts.from_templates(names, [f"a drawing of a {{}} {index}.", "the {}."])
    patterns = torch.randint(30, 226, (classes, 3, 4, 4), generator=random)
    patterns = patterns.repeat_interleave(IMAGE_SIZE // 4, 2).repeat_interleave(IMAGE_SIZE // 4, 3)
    labels = torch.arange(size) % classes
    noise = torch.randint(-20, 21, (size, 3, IMAGE_SIZE, IMAGE_SIZE), generator=random)
    images = (patterns[labels] + noise).to(torch.uint8)
    captions = tuple(prompts[0] for prompts in texts.prompts)
    tokens = WordTokenizer()(list(captions))
    return Task(f"task{index}", texts), FakeTaskData(images, labels, tokens, captions)


@pytest.fixture(autouse=True)
def _fixed_randomness() -> Iterator[None]:
    """Every test starts from the same random state and computes deterministically."""
    torch.manual_seed(0)
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def wandb_offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which W&B sends nothing and writes to folders of the tests only."""
    folder = tmp_path_factory.mktemp("wandb")
    names = ("DATA", "CACHE", "CONFIG", "ARTIFACT")
    return {
        **{f"WANDB_{name}_DIR": str(folder / name) for name in names},
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_PROJECT": "",
        "WANDB_API_KEY": WANDB_KEY,
    }


@pytest.fixture(scope="session")
def quick_runs(tmp_path_factory: pytest.TempPathFactory, wandb_offline: dict[str, str]) -> Path:
    """A folder with smoke runs of two methods, tracked everywhere, and their report in ``out``."""
    folder = tmp_path_factory.mktemp("runs")
    arguments = ["--methods", "zeroshot,nusa", "--seeds", "0", "--quick", "-q"]
    arguments += ["--logger", "wandb,tensorboard", "--logger", "csv"]
    arguments += ["--runs-dir", str(folder), "--out", str(folder / "out")]
    outcome = CliRunner(env=wandb_offline).invoke(app, ["compare", *arguments])
    assert outcome.exit_code == 0, outcome.output
    return folder


@pytest.fixture
def tiny_clip() -> CLIP:
    """A random CLIP that fits in a moment of CPU time."""
    return make_clip()


@pytest.fixture
def tiny_task_data() -> Callable[..., tuple[Task, FakeTaskData]]:
    """`make_task`: index (and number of classes, size) to a task with its training set."""
    return make_task
