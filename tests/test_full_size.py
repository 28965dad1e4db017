"""ViT-B/16 at full size with random weights: every method learns two tasks on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import clbench
from clbench import registry
from clbench.clip.weights.loading import load_clip
from clbench.core.settings import BackboneSettings
from tests.datamodules.test_folder import write_image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of two classes with two training images and one test image each."""
    root = tmp_path_factory.mktemp("own")
    for task, classes in {"pets": ["cat", "dog"], "toys": ["ball", "car"]}.items():
        for name in classes:
            for i in range(2):
                write_image(root / task / "train" / name / f"{name}{i}.png")
            write_image(root / task / "test" / name / f"{name}9.png")
    return root


@pytest.mark.parametrize("method", registry.method_names())
def test_every_method_learns_two_tasks(method: str, folder: Path, tmp_path: Path) -> None:
    small = {"reference": "task", "captions": "task", "reference_batch": 2, "sentences": 20}
    schema = registry.method(method).schema()
    result = clbench.run(
        method,
        f"folder:{folder}",
        backbone="ViT-B-16/random",
        runs_dir=tmp_path / "runs",
        settings={
            "train.steps": 2,
            "train.batch_size": 2,
            "device": "cpu",
            "data_root": str(tmp_path / "cache"),
            **{f"method.{key}": value for key, value in small.items() if key in schema},
        },
        quiet=True,
    )
    assert result.status == "complete"
    assert not np.isnan(result.matrix.values).any()
    assert result.cost.steps == (0 if method == "zeroshot" else 4)
    assert result.backbone.model == "ViT-B-16"


@torch.no_grad()
def test_an_openai_state_dict_gives_the_same_features(tmp_path: Path) -> None:
    """OpenAI's files hold half-precision weights beside three numbers."""
    model = load_clip(BackboneSettings(model="ViT-B-16-quickgelu", weights="random"))
    state = {name: value.half() for name, value in model.export_state_dict().items()}
    numbers = {"context_length": 77, "input_resolution": 224, "vocab_size": 49408}
    beside = {name: torch.tensor(value) for name, value in numbers.items()}
    torch.save({**state, **beside}, tmp_path / "clip.pt")
    loaded = load_clip(
        BackboneSettings(model="ViT-B-16-quickgelu", weights=str(tmp_path / "clip.pt"))
    )
    for name, value in loaded.export_state_dict().items():
        assert torch.equal(value, state[name].float()), name
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    tokens = model.tokenize(["a photo of a cat.", "a photo of the dog."])
    for encode in ("encode_image", "encode_text"):
        inputs = images if encode == "encode_image" else tokens
        before, after = getattr(model, encode)(inputs), getattr(loaded, encode)(inputs)
        assert torch.cosine_similarity(before, after).min() > 0.9999
