"""The benchmarks run on a small model, both formulations agree, and the page holds the numbers."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import open_clip
import pytest
import torch

from clbench import registry
from clbench.clip.layers.dropout import Kept
from clbench.clip.model import CLIP
from clbench.testing.toys import WordTokenizer
from speed import (
    ablations,
    decisions,
    embedded,
    growth,
    keep,
    machine,
    page,
    plain,
    probing,
    sections,
    steps,
)
from speed.joined import joined_projections
from speed.machine import describe, operations, ratio
from speed.operators import Operators
from speed.sections import Plan
from speed.setting import Size, class_texts

CPU = torch.device("cpu")
SIZE = Size("tiny", batch=3, reference=4, rank=4)
PLAN = Plan(
    CPU,
    SIZE,
    repeats=2,
    classes=(3, 5),
    equality_steps=3,
    images=6,
    tasks=(2, 4),
    growing_classes=(2, 4),
    ranks=(2, 4),
    projections=((6, 8, 2),),
    rate_side=64,
    models=("tiny",),
)


def small_model(size: Size, device: torch.device) -> CLIP:
    """A random CLIP with OpenAI's activation."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}
        text = {"context_length": 20, "vocab_size": 512, "width": 64, "heads": 2, "layers": 2}
        network = open_clip.CLIP(32, vision, text, quick_gelu=True)
    model = CLIP(network, WordTokenizer(), [0.5] * 3, [0.25] * 3, "tiny")
    return model.requires_grad_(False).to(device)


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sections, steps, growth, keep, sections.evaluation):
        monkeypatch.setattr(module, "build_model", small_model)
    monkeypatch.setattr(machine, "release", lambda: None)  # takes longer than small steps
    for module in (sections, keep):
        monkeypatch.setattr(module, "release", lambda: None)
        monkeypatch.setattr(module, "alone", lambda function, *arguments: function(*arguments))


def test_plain_encoders_are_the_models():
    model = small_model(SIZE, CPU)
    encoders = plain.Encoders.of(model)
    images = torch.randn(2, 3, 32, 32)
    tokens = model.tokenize(["a photo of a cat.", "dog"])
    torch.testing.assert_close(encoders.image(images), model.encode_image(images))
    torch.testing.assert_close(encoders.text(tokens), model.encode_text(tokens))


@pytest.mark.parametrize("method", ["nusa", "gnsp"])
def test_both_formulations_train_alike(method):
    pair = (
        steps.NuSASteps(SIZE, CPU, dropout=0.0).pair(5)
        if method == "nusa"
        else steps.GNSPSteps(SIZE, CPU, 5, pool=8).pair()
    )
    before = [weight.clone() for weight, _ in pair.weights()]
    differences = steps.largest_differences(pair, 4)
    assert differences["loss"] < 1e-4
    assert differences["weights"] < 1e-5
    moved = [(a - b).abs().max() for a, (b, _) in zip(before, pair.weights(), strict=True)]
    assert min(moved) > 1e-6


def test_plain_projector_is_dense_and_leaves_out_the_leading_directions():
    gram = torch.diag(torch.tensor([8.0, 1.0, 0.5, 0.5]))
    torch.testing.assert_close(
        plain.null_projector(gram, 0.15), torch.diag(torch.tensor([0.0, 0.0, 1.0, 1.0]))
    )


@pytest.mark.parametrize("name", ablations.SHORTCUTS)
def test_a_shortcut_left_out_changes_no_loss(name):
    method = steps.NuSASteps(SIZE, CPU, dropout=0.0)
    model = method.model
    loss = method.pair(4).shipped()
    with ablations.SHORTCUTS[name](method):
        assert method.pair(4).shipped() == pytest.approx(loss, abs=1e-5)
    assert not model.blocks("vision")[-1]._forward_hooks
    assert method.pair(4).shipped() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("method", keep.METHODS)
def test_plain_counterparts_train_alike(method):
    losses = {}
    for name, variant in keep.VARIANTS.items():
        step = keep.method_step(method, SIZE, 4, CPU, dropout=0.0)
        with variant():
            losses[name] = [step() for _ in range(3)]
    shipped = losses[keep.SHIPPED]
    assert abs(shipped[2] - shipped[0]) > 1e-4
    assert set(decisions.ASSUMED) < set(losses)
    for name, alike in losses.items():
        assert alike == pytest.approx(shipped, abs=1e-5), name


def test_plain_masks_keep_what_they_should():
    with keep.VARIANTS["own dropout masks"]():
        kept = Kept.drawn(torch.Size((40, 1000)), CPU, 0.25)
    numbers = kept.as_numbers(torch.float32)
    assert isinstance(kept.bits, torch.Tensor)
    assert set(numbers.unique().tolist()) == {0.0, 1.0}
    assert numbers.mean().item() == pytest.approx(0.75, abs=0.02)
    assert not isinstance(Kept.drawn(torch.Size((8,)), CPU, 0.25).bits, torch.Tensor)


def measured_ratios(times: dict[str, float], peaks: dict[str, float]) -> dict[str, object]:
    """A result of the section of one method."""
    rows = [
        {"variant": name, "time_ratio": times.get(name, 1.0), "peak_ratio": peaks.get(name, 1.0)}
        for name in keep.VARIANTS
    ]
    return {"methods": [{"method": "LoRA", "rows": rows}]}


def test_what_gains_a_tenth_anywhere_is_kept():
    in_time, in_memory, on_gpu, nothing = decisions.ASSUMED
    cpu = measured_ratios({in_time: 1.1, nothing: 0.5}, {in_memory: 1.3, nothing: 1.09})
    gpu = measured_ratios({on_gpu: 2.0}, {})
    rows = {row[0]: row[2:] for row in decisions.rows(cpu, gpu)}
    assert list(rows) == [name for name in keep.VARIANTS if name != keep.SHIPPED]
    assert rows[in_time] == ["1.10", "1.00", "1.00", "1.00", "kept"]
    assert {name: rows[name][-1] for name in (in_memory, on_gpu)} == {
        in_memory: "kept",
        on_gpu: "kept",
    }
    assert rows[nothing][-1] == "deleted"
    assert rows["all four"][-1] == ""
    without = {row[0]: row[2:] for row in decisions.rows(cpu, None)}
    assert without[in_time] == ["1.10", "1.00", "not measured", "not measured", "kept"]
    assert without[nothing][-1] == "open until measured on a GPU"


def test_operations_count_products_added_in_place():
    a, b, c = torch.randn(3, 4), torch.randn(4, 5), torch.randn(3, 5)
    assert operations(lambda: float((a @ b).sum() + c.addmm_(a, b).sum())) == 2 * (2 * 3 * 4 * 5)


def test_ratios_compare_neighbours():
    assert ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own():
    here = os.getpid()
    assert machine.alone(os.getpid) != here
    assert machine.alone(torch.get_num_threads) == torch.get_num_threads()


def test_joined_products_are_the_three_products():
    result = joined_projections(10, 8, 4, repeats=1, device=CPU)
    assert result["largest_difference"] < 1e-5


def test_class_names_are_distinct_beyond_those_of_imagenet():
    assert len(set(class_texts(1200).names)) == 1200


def test_operators_are_called_again_on_what_earlier_ones_make():
    x = torch.randn(3, 4)
    w = torch.randn(4, 5, requires_grad=True)

    def function() -> torch.Tensor:
        w.grad = None
        hidden = (x @ w).relu_().T
        (hidden[1:] * hidden[1:].detach()).sum().backward()
        assert w.grad is not None
        return w.grad.mul(2.0)

    operators = Operators.of(function)
    x.mul_(-3.0)
    (again,) = operators()
    torch.testing.assert_close(again, function())
    assert again.abs().max() > 0
    assert len(operators) >= 8


@pytest.mark.slow
def test_the_parts_of_an_embedded_run_are_its_own(monkeypatch):
    monkeypatch.setattr(embedded, "_load_modules", lambda: None)
    loading, step, test = embedded.parts(2, CPU)
    assert (loading["count"], step["count"], test["count"]) == (1, 11 * 100, 12 * 11)
    for part in (step, test):
        assert part["operators"] > 300
        assert len(part["seconds"]) == len(part["operator_seconds"]) == 2
        assert part["floor_seconds"] < min(part["seconds"])
    # Twelve products per token and layer of width 128, of which a quarter of one layer is left out.
    assert test["operations"] == pytest.approx(400 * 17 * 4 * 24 * 128**2, rel=0.3)


@pytest.mark.slow
def test_every_section_goes_onto_the_page(tmp_path: Path):
    made_up = describe_quickly()
    for name, section in sections.SECTIONS.items():
        if name in ("help", "mini", "probes", "reading"):
            continue
        measured = {"measured": "now", "machine": made_up, **section(PLAN)}
        (tmp_path / f"{name}.json").write_text(json.dumps(measured))
    (tmp_path / "help.json").write_text(json.dumps({"seconds": [0.3, 2.0, 0.4]}))
    step = {"part": "step", "count": 1000, "seconds": [0.05], "operators": 9}
    step |= {"operator_seconds": [0.04], "floor_seconds": 0.01}
    parts = [{"part": "loading", "count": 1, "seconds": [5.0]}, step]
    embedded_run = {"seconds": [61.0, 70.4], "parts": parts, "measured": "now", "machine": made_up}
    (tmp_path / "mini.json").write_text(json.dumps(embedded_run))
    row = probing.of_a_row(1, CPU, quick=True)
    (tmp_path / "probes.json").write_text(
        json.dumps({"measured": "now", "machine": made_up, **row})
    )
    file = tmp_path / "speed.md"
    page.write_page(tmp_path, file)
    text = file.read_text()
    assert "| clbench --help | ≤ 1 s | 0.4 s | met |" in text
    assert "run after run: 61 s, 70 s." in text
    assert re.search(r"^\| test \| \d+\.\d s \| 1\.00 \|$", text, re.MULTILINE)
    for name in registry.probe_names():
        assert re.search(rf"^\| {name} \| \d+\.\d s \|", text, re.MULTILINE), name
    assert "| together |  |  |  | 55.0 s | 45.0 s | 15.0 s |" in text
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert len(titles) == len(set(titles)) >= 10
    for line in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        assert "nan" not in line
    for name in ablations.SHORTCUTS:
        assert f"| {name} |" in text
    for name in decisions.ASSUMED:
        assert re.search(rf"^\| {name} \|.*\| not measured \|", text, re.MULTILINE)


def describe_quickly() -> dict[str, object]:
    """The description of a machine with made-up rates."""
    rates = {"fp32": 1e11, "fp64": 5e10, "bf16": 2e11}
    return {
        "device": "a test",
        "threads": 1,
        "torch": torch.__version__,
        "bf16_units": True,
        "operations_per_second": rates,
        "bytes_per_second": 1e10,
    }


def test_reading_compares_the_same_pixels():
    result = sections.reading(Plan(CPU, repeats=1, images=2))
    assert result["same_pixels"]
    assert result["images"] == 8


@pytest.mark.slow
def test_the_machine_describes_itself():
    assert describe(CPU).keys() == describe_quickly().keys()


def test_committed_numbers_are_those_of_the_page(tmp_path: Path):
    root = Path(__file__).parents[2]
    page.write_page(root / "reports" / "speed", tmp_path / "speed.md")
    assert (tmp_path / "speed.md").read_text() == (root / "docs" / "speed.md").read_text()
