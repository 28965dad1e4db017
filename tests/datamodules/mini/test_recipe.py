"""Pretraining of a part of the length: a complete schedule, and weights under a lasting name."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from clbench.clip.weights.loading import load_clip
from clbench.core.errors import ClbenchError
from clbench.core.files import cached_file
from clbench.core.settings import BackboneSettings
from clbench.datamodules.mini import pretrain
from clbench.datamodules.mini.recipe import Recipe, learning_rate


def test_a_shortened_schedule_is_the_whole_one_on_a_smaller_scale() -> None:
    whole, tenth = Recipe(), Recipe().shortened(0.1)
    assert (tenth.steps, tenth.mixed_steps, tenth.clean_images) == (275, 50, 16_000)
    for step in (100, 1500, 2240, 2260, 2740):
        rate = learning_rate(step, whole)
        assert learning_rate(step // 10, tenth) == pytest.approx(rate, rel=0.1, abs=2e-5)
    assert Recipe().shortened(1.0) == whole


def test_names_of_weights_stay_and_belong_to_one_recipe() -> None:
    names = [Recipe().shortened(share).weights for share in (0.1, 0.5)]
    assert names == [
        "cache:mini/weights/3bf897937414.safetensors",
        "cache:mini/weights/9702378493f2.safetensors",
    ]
    assert dataclasses.replace(Recipe(), seed=1).weights != Recipe().weights


def test_weights_are_made_kept_in_the_cache_and_found_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrain, "zero_shot_accuracy", lambda *_: [("arrows", 0.5)])
    monkeypatch.setattr(pretrain, "ProcessPoolExecutor", InThisProcess)
    recipe = Recipe(steps=3, mixed_steps=1, clean_images=12, wild_images=4, batch_size=4)
    file = cached_file(recipe.weights)
    assert file is not None
    with pytest.raises(ClbenchError, match="does not exist"):
        load_clip(BackboneSettings(model="mini", weights=recipe.weights))
    file.parent.mkdir(parents=True)
    pretrain.make_weights(recipe, file)
    assert list(tmp_path.rglob("*.*")) == [file]  # checkpoints are gone
    assert "rendering 16 pictures" in capsys.readouterr().out
    made = load_clip(BackboneSettings(model="mini", weights=recipe.weights))
    whole = load_clip(
        BackboneSettings(model="mini", weights="clbench.datamodules.mini:clip.safetensors")
    )
    assert made.fingerprint() != whole.fingerprint()
    assert torch.isfinite(made.encode_text(made.tokenize(["a picture of a star."]))).all()


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        (["--share", "0.1"], Recipe().shortened(0.1)),
        (["--share", "1"], Recipe()),
        (["--steps", "400"], Recipe(steps=400, mixed_steps=400)),
        (["--mixed-steps", "7", "--wild-share", "0.5"], Recipe(mixed_steps=7, wild_share=0.5)),
    ],
)
def test_the_command_line_makes_the_weights_of_the_recipe(
    options: list[str], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Recipe, Path]] = []
    monkeypatch.setenv("CLBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(pretrain, "make_weights", lambda recipe, out, _: made.append((recipe, out)))
    out = [] if "--share" in options else ["--out", str(tmp_path / "weights")]
    monkeypatch.setattr(sys, "argv", ["pretrain", *options, *out])
    pretrain.main()
    expected = tmp_path / "weights" if out else cached_file(recipe.weights)
    assert made == [(recipe, expected)]


class InThisProcess:
    """Stands in for a pool of processes."""

    def __enter__(self) -> "InThisProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)
