"""`--claims`: which pairs count, and whether they are found, on published numbers made up here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.report.paired import claims as module
from clbench.report.paired.claims import FOUND, OPEN, REVERSED, Claims, claims
from clbench.report.paired.comparison import compare_methods
from clbench.report.papers.published import PublishedNumber
from tests.made_up import VALUES
from tests.report.answers import write_run
from tests.report.paired.test_comparison import LOWER, Files, MakeResult

HIGHER = [*VALUES[:3], [0.9, 0.9, 1.0]]


def number(method: str, metric: str, value: float, **changes: str) -> PublishedNumber:
    """A number that somebody might have published."""
    fields = {
        "benchmark": "MTIL-full",
        "order": "I",
        "backbone": "CLIP ViT-B/16 (OpenAI)",
        "task": "",
        "source": "made up",
        "trust": "direct",
    }
    return PublishedNumber(method, method, metric=metric, value=value, **{**fields, **changes})


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has these numbers be all that were ever published."""

    def all_there_is(*numbers: PublishedNumber) -> None:
        monkeypatch.setattr(module, "published_numbers", lambda: numbers)

    return all_there_is


@pytest.fixture
def runs(make_result: MakeResult, tmp_path: Path) -> Files:
    """After the last task NuSA-CL has the most, LoRA and MiLoRA have the same."""
    made = {"nusa": HIGHER, "lora": LOWER, "milora": LOWER, "diki": VALUES}
    return [
        write_run(tmp_path / name, make_result(name, values=values))
        for name, values in made.items()
    ]


def only(found: list[Claims]) -> Claims:
    (one,) = found
    return one


def test_a_pair_is_found_open_or_reversed(runs: Files, publish: Callable[..., None]) -> None:
    publish(
        number("NuSA-CL", "last", 82.0),
        number("LoRA", "last", 80.0),
        number("MiLoRA", "last", 84.5),
    )
    found = only(claims(runs, "mtil"))
    verdicts = {key: row["verdict"] for key, row in found.table.iterrows()}
    assert verdicts == {
        ("last", "nusa", "lora"): FOUND,
        ("last", "milora", "nusa"): REVERSED,
        ("last", "milora", "lora"): OPEN,
    }
    row = found.table.loc[("last", "milora", "nusa")]
    (pair,) = compare_methods(runs, "milora", "nusa")
    assert row["published"] == pytest.approx(2.5)
    assert row["difference"] == pytest.approx(pair.table.loc["Last", "difference"])
    assert row["low"] == pytest.approx(pair.table.loc["Last", "low"], abs=0.004)
    assert found.notes[0] == ("Last: of 3 pairs that differ in papers 1 found, 1 open, 1 reversed.")
    ((*names, published, measured),) = [[cell.text for cell in r] for r in found.grid().rows]
    assert [*names, published] == ["Last", "milora", "nusa", "+2.5"]
    assert measured.startswith("-20.0 [-")


def test_all_reports_of_both_have_to_agree(runs: Files, publish: Callable[..., None]) -> None:
    publish(
        number("NuSA-CL", "average", 75.0),
        number("NuSA-CL", "average", 73.4),
        number("LoRA", "average", 72.5),  # 0.9 from one of the reports
        number("MiLoRA", "average", 72.4),
    )
    found = only(claims(runs, "mtil"))
    assert found.table.index.to_list() == [("average", "nusa", "milora")]
    assert found.table["published"].to_list() == [pytest.approx(1.0)]


def test_what_is_not_comparable_is_left_out(runs: Files, publish: Callable[..., None]) -> None:
    publish(
        number("NuSA-CL", "last", 82.0),
        number("LoRA", "last", 80.0),
        number("DIKI", "last", 90.0),  # decides by the batch
        number("MiLoRA", "last", 70.0, order="II"),
        number("MiLoRA", "last", 70.0, backbone="CLIP ViT-L/14 (OpenAI)"),
        number("MiLoRA", "last", 70.0, task="Aircraft"),
        number("MiLoRA", "last", 70.0, benchmark="MTIL-16shot"),
    )
    found = only(claims(runs, "mtil"))
    assert found.table.index.to_list() == [("last", "nusa", "lora")]
    assert found.methods == 2


def test_other_seeds_are_left_out_and_named(
    runs: Files, publish: Callable[..., None], make_result: MakeResult, tmp_path: Path
) -> None:
    other = write_run(tmp_path / "nusa5", make_result("nusa", 5))
    kept = [run for run in runs if run[1].method.name != "nusa"]
    publish(
        number("LoRA", "last", 80.0), number("MiLoRA", "last", 84.0), number("NuSA-CL", "last", 1.0)
    )
    found = only(claims([*kept, other], "mtil"))
    assert found.left_out == ("nusa",)
    assert "nusa" in found.notes[-1]


def test_what_cannot_be_compared_is_told(runs: Files, publish: Callable[..., None]) -> None:
    publish(number("NuSA-CL", "last", 82.0))
    with pytest.raises(ClbenchError, match="of no two methods"):
        claims(runs, "mtil")
    with pytest.raises(ClbenchError, match=r"'mtill': did you mean 'mtil'\?"):
        claims(runs, "mtill")


def test_from_the_command_line(runs: Files, tmp_path: Path) -> None:
    folder, out = str(runs[0][0].parents[1]), tmp_path / "tables"
    done = CliRunner().invoke(app, ["report", folder, "--claims", "mtil", "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    assert "What papers found on mtil" in done.stdout
    lines = (out / "claims-mtil.csv").read_text().splitlines()
    assert lines[0] == "metric,better,worse,published,difference,low,high,verdict"
    # The official NuSA-CL log, its README and its baselines, as printed.
    assert any(line.startswith("last,NuSA-CL,LoRA,2.8") for line in lines)
