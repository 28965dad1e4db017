from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from clbench import registry
from clbench.core.results.result import BackboneRecord
from clbench.core.task import Setting
from clbench.datamodules.catalogue.catalogue import CATALOG
from clbench.report.papers.published import papers
from clbench.report.papers.zero_shot_check import comparisons, probe_check, zero_shot_check
from tests.made_up import make_result

# Row 0 of a made-up result is 20, 30 and 40 percent.
PUBLISHED = {
    "accuracy": {"arrows": 20.1, "clocks": 29.8, "elsewhere": 1.0},
    "tolerance": {"default": 0.1, "clocks": 0.5},
    "backbone": {"model": "ViT-B-16", "weights": "openai"},
    "source": "a paper",
}


def printed(result: Any, published: dict[str, Any]) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(zero_shot_check(result, published))
    return capture.get()


def test_measured_stands_beside_published() -> None:
    rows = comparisons(make_result(), PUBLISHED)
    assert [(r.name, r.difference, r.agrees) for r in rows] == [
        ("arrows", -0.1, True),
        ("clocks", 0.2, True),
    ]
    text = printed(make_result(), PUBLISHED)
    assert "zero-shot check passed: all 2 numbers agree with a paper" in text
    for number in ("20.1", "20.0", "-0.1", "29.8", "30.0", "+0.2"):
        assert number in text


def test_a_difference_beyond_the_tolerance_fails_by_name() -> None:
    published = {**PUBLISHED, "tolerance": {"default": 0.1}}
    text = printed(make_result(), published)
    assert "zero-shot check FAILED for clocks" in text
    assert "arrows" not in text.splitlines()[-2]


@pytest.mark.parametrize(
    ("measured", "agrees"), [(0.2015, True), (0.2024, True), (0.2026, False), (0.1994, False)]
)
def test_differences_are_those_of_the_printed_numbers(measured: float, agrees: bool) -> None:
    """Published numbers have one decimal, so the last digit is all that can be compared."""
    values = [[measured, 0.298, 0.4], *([[0.5] * 3] * 3)]
    (first, _) = comparisons(make_result(values=values), PUBLISHED)
    assert first.agrees is agrees


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "mini"}, "this run used mini"),
        ({"weights": "laion2b"}, "this run used ViT-B-16 (laion2b)"),
        ({"status": "quick"}, "a smoke run"),
        ({"setting": Setting.TASK_HIDDEN}, "data set known at test"),
    ],
)
def test_other_runs_are_not_comparable(changes: dict[str, Any], reason: str) -> None:
    text = printed(make_result(**changes), PUBLISHED)
    assert "zero-shot check: not comparable" in text
    assert reason in text
    assert "FAILED" not in text


def test_the_recipe_of_mtil_covers_every_data_set() -> None:
    published = registry.benchmark("mtil").results["zero_shot"]
    assert list(published["accuracy"]) == list(CATALOG)
    # The other two data sets without an official split are split as torchvision lists them.
    assert published["tolerance"] == {"default": 0.1, "SUN397": 0.5}
    mean = sum(published["accuracy"].values()) / 11
    assert round(mean, 1) == 65.3  # as published


# What CLIP_benchmark prints of this model.
OPENAI = {
    "general": {
        "mean": 0.6122,
        "imagenet": 0.6834,
        "imagenet-v2": 0.6188,
        "imagenet-r": 0.7767,
        "imagenet-a": 0.5007,
        "imagenet-sketch": 0.4814,
    },
    "retrieval": {"flickr30k_t2i_r1": 0.6, "flickr30k_t2i_r5": 0.8554, "coco_i2t_r5": 0.7682},
}


def probed(values: dict[str, Any], weights: str = "openai") -> str | None:
    backbone = BackboneRecord(model="ViT-B-16", weights=weights, fingerprint="f1")
    check = probe_check(values, backbone, papers()["probes"])
    console = Console(width=200)
    with console.capture() as capture:
        console.print(check)
    return None if check is None else capture.get()


def test_probes_of_the_untrained_model_stand_beside_published_numbers() -> None:
    text = probed(OPENAI)
    assert text is not None
    assert "probe check passed: all 7 numbers agree with CLIP_benchmark" in text
    for number in ("68.35", "68.34", "-0.01", "85.54"):
        assert number in text


def test_a_probe_that_differs_is_named() -> None:
    low = {**OPENAI, "retrieval": {"flickr30k_t2i_r5": 0.8514}}
    text = probed(low)
    assert text is not None
    assert "probe check FAILED for retrieval: flickr30k_t2i_r5:" in text


def test_other_models_and_other_probes_have_no_published_numbers() -> None:
    assert probed(OPENAI, weights="laion2b") is None
    assert probed({"gap": {"gap": 0.8}, "general": {"dots": 0.5}}) is None
