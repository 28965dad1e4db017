"""What methods cost is measured one by one, once, and the page holds the numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from clbench.testing.toys import make_clip
from speed import __main__ as program
from speed import costs, machine
from speed.costs_page import write_costs_page
from speed.published import PUBLISHED

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "reports" / "speed" / "costs"
CPU = torch.device("cpu")


def measure(folder: Path, *names: str) -> list[str]:
    """Measure methods on a tiny model; what was said."""
    said: list[str] = []
    costs.measure(names, costs.QUICK, folder, CPU, stamp=lambda: "today 12:00", say=said.append)
    return said


def row_of(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_released() -> Iterator[None]:
    """It takes longer than small steps."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (costs, machine):
            patch.setattr(module, "release", lambda: None)
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("costs")
    measure(folder, "finetune", "inflora", "zeroshot", "er")
    return folder


def test_what_methods_train_and_keep_is_counted(measured: Path) -> None:
    everything = sum(p.numel() for p in make_clip().parameters()) - 1
    for name in ("finetune", "er"):
        assert [task["trained"] for task in row_of(measured, name)["tasks"]] == 2 * [everything]
    inflora = row_of(measured, "inflora")
    trained = inflora["tasks"][0]["trained"]
    assert trained == 2 * 2 * 2 * 128 * 64, "encoders, blocks, keys and values, rank, width"
    assert inflora["trained_as_published"] == 2 * trained
    assert "trained_as_published" not in row_of(measured, "finetune")
    first, second = (task["stored_bytes"] for task in row_of(measured, "er")["tasks"])
    assert second - first >= 4 * row_of(measured, "er")["image_bytes"]
    assert row_of(measured, "zeroshot")["tasks"][0]["trained"] == 0


def test_time_memory_and_passes_are_measured(measured: Path) -> None:
    inflora, zeroshot = (row_of(measured, name) for name in ("inflora", "zeroshot"))
    assert (inflora["begin_passes"], inflora["end_passes"]) == (1, 1)
    assert (zeroshot["begin_passes"], zeroshot["end_passes"]) == (0, 0)
    assert len(inflora["seconds"]) == 1 + len(inflora["reference_seconds"])
    assert min(*inflora["seconds"], inflora["begin_seconds"], inflora["end_seconds"]) > 0
    assert "seconds" not in zeroshot


def test_a_method_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure(tmp_path, "zeroshot", "diki") == ["1/2 zeroshot ...", "2/2 diki ..."]
    before = (tmp_path / "diki.json").read_bytes()
    said = measure(tmp_path, "zeroshot", "diki")
    assert said == ["1/2 zeroshot: measured before", "2/2 diki: measured before"]
    assert (tmp_path / "diki.json").read_bytes() == before
    monkeypatch.setattr(costs, "source_hash", lambda _: "another")
    assert measure(tmp_path, "zeroshot") == ["1/1 zeroshot ..."]


def test_an_interruption_loses_nothing(tmp_path: Path) -> None:
    def say(line: str) -> None:
        if line.startswith("2/2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        costs.measure(
            ["zeroshot", "diki"], costs.QUICK, tmp_path, CPU, stamp=lambda: "today", say=say
        )
    assert [path.name for path in tmp_path.iterdir()] == ["zeroshot.json"]


def test_teachers_see_new_images_in_every_step() -> None:
    pool = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    stream = costs.EndlessStream(pool, ("a cat",), 0, "elsewhere")
    images = torch.cat([stream.images(step, 3) for step in range(3)])
    assert len(images.flatten(1).unique(dim=0)) == 9


def test_images_of_a_step_shrink_with_the_batch() -> None:
    settings, _ = costs.config.resolve("snd", costs.BENCHMARK)
    of_step = settings.method.params["reference_batch"] / settings.train.batch_size
    assert costs._scaled(settings, 4)["reference_batch"] == 4 * of_step


MADE_UP = {
    "method": "nusa",
    "measured": "2026-01-02 03:04 UTC",
    "machine": {"device": "a test", "threads": 1, "torch": "2"},
    "key": {"model": "ViT-B-16-quickgelu", "batch": 2, "classes": 3},
    "begin_seconds": 4.0,
    "begin_passes": 0.5,
    "end_seconds": 1.0,
    "end_passes": 1.0,
    "seconds": [3.0, 2.5, 2.0],
    "reference_seconds": [2.0, 2.0],
    "step_peak_bytes": 1_500_000_000,
    "between_peak_bytes": 1_250_000_000,
    "tasks": [
        {"trained": 1_572_864, "added": 0, "stored_bytes": 2_000_000},
        {"trained": 1_000_000, "added": 0, "stored_bytes": 2_500_000},
    ],
    "recipe": {"batch_size": 16, "steps": 1000, "epochs": None, "capacity": 10},
    "images": 4,
    "image_bytes": 150_000,
}


def page_of(tmp_path: Path, *rows: dict[str, Any]) -> str:
    for row in rows:
        (tmp_path / f"{row['method']}.json").write_text(json.dumps(row))
    write_costs_page(tmp_path, tmp_path / "costs.md", ["lora", "nusa", "rail", "snd"])
    return (tmp_path / "costs.md").read_text()


def test_the_page_holds_the_numbers(tmp_path: Path) -> None:
    untrained = {k: v for k, v in MADE_UP.items() if k not in ("seconds", "step_peak_bytes")}
    epochs = {"batch_size": 128, "steps": None, "epochs": 10, "capacity": None}
    text = page_of(
        tmp_path,
        MADE_UP,
        {**untrained, "method": "rail"},
        {**MADE_UP, "method": "snd", "recipe": epochs},
    )
    nusa = "[`nusa`](methods/nusa.md)"
    time = "1.25 | 1.00, 1.50 | 1000 x 16 | 0.31 | 2.00 | 0.50 | 0.5 + 1 | 1.50 GB | 1.25 GB |"
    assert f"| {nusa} | {time}" in text
    assert "| no steps |  |  |  | 2.00 | 0.50 | 0.5 + 1 |  | 1.25 GB |" in text
    assert "| 1.25 | 1.00, 1.50 | 10 passes of 128 |  | 2.00 |" in text
    assert f"| {nusa} | 1.57 M | 1.00 M | 2.0 MB | +0.5 MB | 2 MB |" in text
    blocks = "M of 128 x 128, 4 weights, 24 blocks: 1.57 M"
    assert f"| {nusa} | 1.5 M | {blocks} | 1.57 M | none; cut, not rounded |" in text
    assert "Measured with ViT-B-16, 2 images a step, 3 classes and 4 images a task." in text
    assert "Measured 2026-01-02 on a test, 1 threads, torch 2." in text
    assert text.endswith("Not measured yet: `lora`. The program goes on with them.\n")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers_are_the_sums_given_for_them(name: str) -> None:
    assert 0 <= PUBLISHED[name].total / 1e6 - PUBLISHED[name].millions + 0.05 < 0.15


def test_published_numbers_are_those_of_the_release() -> None:
    names = {"finetune": "Continual-FT (NuSA-CL release)", "nusa": "NuSA-CL", "lora": "LoRA"}
    names |= {"milora": "MiLoRA", "inflora": "InfLoRA"}
    with (ROOT / "experiments" / "published.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "trainable_params_M"]
    released = {row["method"]: float(row["value"]) for row in rows}
    assert {label: PUBLISHED[name].millions for name, label in names.items()} == released


@pytest.mark.parametrize("name", PUBLISHED)
def test_measured_numbers_are_made_of_the_same_parts(name: str) -> None:
    row, published = row_of(COMMITTED, name), PUBLISHED[name]
    trained = row.get("trained_as_published", row["tasks"][0]["trained"])
    parts = [*published.parts.values()]
    if name == "moe_adapters":
        assert trained == parts[0] + parts[1] // 11
    elif name == "diki":
        assert trained == published.total // 11
    elif name == "lada":
        adapters = 12 * (2 * 64 * 512 + 64 + 512)
        assert trained == published.total * row["key"]["classes"] // 1100 + adapters
    else:
        assert trained == published.total


def test_committed_numbers_are_those_of_the_page(tmp_path: Path) -> None:
    write_costs_page(COMMITTED, tmp_path / "costs.md", program.METHODS)
    assert (tmp_path / "costs.md").read_text() == (ROOT / "docs" / "costs.md").read_text()


def test_the_program_can_be_tried_in_moments(capsys: pytest.CaptureFixture[str]) -> None:
    program.main(methods="zeroshot", quick=True)
    shown = capsys.readouterr().out
    assert "1/1 zeroshot ..." in shown
    assert "| no steps |" in shown


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="unknown method 'nosuch'"):
        program.main(methods="nusa,nosuch", quick=True)
