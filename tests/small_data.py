"""Small copies of the eleven data sets, and a small CLIP that knows CLIP's whole vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from clbench.datamodules.catalogue.catalogue import declared_counts
from tests.datamodules.disk_formats import write_all

IMAGE_SIZE = 32


@contextmanager
def small_data(root: Path) -> Iterator[Path]:
    """Write all data sets below `root` and expect their sizes."""
    with declared_counts(write_all(root)):
        yield root


def write_small_clip(path: Path) -> Path:
    """A random CLIP of one block per encoder in a file that describes itself."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "patch_size": 16,
            "width": 32,
            "layers": 1,
            "head_width": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = open_clip.CLIP(**config)
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(state, path, {"model_cfg": json.dumps(config)})
    return path
