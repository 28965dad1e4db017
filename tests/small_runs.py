"""Whole runs that take moments: folders of a few images as tasks, and a small random CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clbench import config
from clbench.api import run_resolved
from clbench.core.method import Method
from clbench.core.results.result import RunResult
from clbench.engine.process.progress import QuietReporter, Reporter
from tests.small_data import write_small_clip

SIZE = 48
"""Side of the images, larger than what the embedded CLIP takes."""


def write_tasks(root: Path, tasks: int = 2, classes: int = 2, images: int = 6) -> Path:
    """Tasks of noisy patterns, the same images to train and to test with."""
    random = np.random.default_rng(0)
    for task in range(tasks):
        for number in range(classes):
            pattern = random.integers(30, 226, (4, 4, 3)).repeat(SIZE // 4, 0).repeat(SIZE // 4, 1)
            for image in range(images):
                pixels = pattern + random.integers(-25, 26, pattern.shape)
                for split in ("train", "test"):
                    path = root / f"task{task}" / split / f"kind {task} {number}" / f"{image}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def run_small(
    method: str | type[Method],
    tasks: Path,
    runs_dir: Path,
    *,
    backbone: str | None = None,
    reporter: Reporter | None = None,
    fresh: bool = False,
    **overrides: Any,
) -> RunResult:
    """What `clbench.run` does, on the given tasks; a dot in a setting's name is ``__`` here.

    The backbone is a small random CLIP beside the tasks unless one is named.
    """
    backbone = backbone or str(_small_clip(tasks.parent / "clip.safetensors"))
    settings, cls = config.resolve(
        method,
        f"folder:{tasks}",
        overrides={
            **config.backbone_settings(backbone),
            "data_root": str(tasks.parent / "cache"),
            "device": "cpu",
            "train.steps": 4,
            "train.batch_size": 6,
            "train.lr": 1e-3,
            "train.warmup": 0,
            **{key.replace("__", "."): value for key, value in overrides.items()},
        },
    )
    return run_resolved(settings, cls, runs_dir, reporter or QuietReporter(), fresh=fresh)


def _small_clip(path: Path) -> Path:
    return path if path.exists() else write_small_clip(path)
