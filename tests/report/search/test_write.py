"""What is written about a search: tables with hand-computed numbers, figures, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clbench.core.errors import ClbenchError
from clbench.core.files import file_hash
from clbench.lock import lock
from clbench.naming import titles
from clbench.report.search.write import write_search
from tests.made_up import VALUES, make_result, shifted

RATES = "2e-05 to 0.02 (log)"


class Folder:
    """The folder of a made-up search."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.content: dict[str, Any] = {
            "format": "clbench-tuning/1",
            "benchmark": "mini",
            "criterion": "average",
            "budget": 4,
            "settings": {"first_tasks": 3},
            "quick": False,
            "methods": {},
        }

    def result(self, method: str, seed: int, number: int, values: list[list[float]]) -> float:
        needs = ("all-data",) if method == "joint" else ()
        result = make_result(method, seed, values, needs=needs)
        result.save(self.out / "results" / f"{method}-seed{seed}-{number:08x}.json")
        average = result.summary["average"]
        assert average is not None
        return average

    def method(self, name: str, trials: list[tuple[dict[str, Any], Any]], **more: Any) -> None:
        """Add a method: each trial has its values, and accuracies or None where it diverged."""
        ranges = {key: RATES if key == "train.lr" else "4, 8, 16" for key in trials[0][0]}
        entries = [
            {
                "values": values,
                "score": None if matrix is None else self.result(name, 0, number, matrix),
                "result": f"{name}-seed0-{number:08x}.json",
            }
            for number, (values, matrix) in enumerate(trials)
        ]
        self.content["methods"][name] = {
            "declared": ranges,
            "searched": ranges,
            "extended": [],
            "trials": entries,
            "repeated": {},
            "chosen": None,
            "edges": dict.fromkeys(ranges, ""),
            "problem": "",
        } | more
        self.save()

    def save(self) -> None:
        (self.out / "trials.json").write_text(json.dumps(self.content))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """One method with a trade-off and a divergence, one with nothing to search, one lost."""
    made = Folder(tmp_path)
    # Transfer 0.475 and Last 0.8; Transfer 0.375 and Last 0.7; Transfer 0.525 and Last 0.3.
    careful = [VALUES[0], [0.3, 0.5, 0.5], [0.3, 0.3, 0.6], [0.3, 0.3, 0.3]]
    trials: list[tuple[dict[str, Any], Any]] = [
        ({"train.lr": 1e-4, "method.rank": 8}, VALUES),
        ({"train.lr": 1e-3, "method.rank": 4}, shifted(-0.1)),
        ({"train.lr": 1e-2, "method.rank": 16}, None),
        ({"train.lr": 1e-5, "method.rank": 8}, careful),
    ]
    again = made.result("lora", 1, 0, shifted(-0.05))
    made.method(
        "lora",
        trials,
        chosen=0,
        repeated={"0": {"0": 0.7, "1": again, "2": None}},
        extended=["train.lr"],
        edges={"train.lr": "", "method.rank": "the last of the list"},
    )
    made.method("frozen", [({}, [VALUES[0]] * 4)], chosen=0)
    made.method("lost", [({"train.lr": 1e-2}, None)], problem="trials are missing")
    return made


def table(folder: Folder) -> pd.DataFrame:
    write_search(folder.out)
    return pd.read_csv(folder.out / "summary.csv", index_col="method")


def test_the_csv_file_has_the_numbers(folder: Folder) -> None:
    frame = table(folder)
    assert frame.index.to_list() == ["zero-shot (before training)", "frozen", "lora", "lost"]
    assert frame.loc["zero-shot (before training)", "transfer"] == pytest.approx(0.35)
    row = frame.loc["lora"]
    assert (row["trials"], row["diverged"], row["n"]) == (4, 1, 2)
    assert row["chosen"] == "train.lr=0.0001, method.rank=8"
    assert row["average"] == pytest.approx((0.7 + 0.65) / 2)
    assert row["average_std"] == pytest.approx(0.05 / 2**0.5)
    assert row["learned"] == pytest.approx((0.9 + (0.75 + 0.85 + 0.95) / 3) / 2)
    assert row["last_chooses"] == row["transfer+last_chooses"] == row["chosen"]
    assert row["transfer+last_value"] == pytest.approx((0.475 + 0.8) / 2)
    assert row["transfer_chooses"] == "train.lr=1e-05, method.rank=8"
    assert row["transfer_value"] == pytest.approx((0.5 + (0.5 + 0.6) / 2) / 2)
    assert row["area"] == pytest.approx(0.475 * 0.8 + (0.525 - 0.475) * 0.3)
    averages = [0.7, 0.6, 0.0, (0.3 * 6 + 0.5 + 0.5 + 0.6) / 9]
    assert row["expected_best_1"] == pytest.approx(sum(averages) / 4)
    assert pd.isna(row["expected_best_8"]), "only four were tried"
    assert frame.loc["frozen", "expected_best_8"] == pytest.approx(0.3), "there is nothing to try"
    assert frame.loc["lost", "area"] == 0


def test_the_lock_file_has_the_tables_of_the_search(folder: Folder) -> None:
    write_search(folder.out, titles())
    locked = lock(folder.out)
    for name in ("summary.md", "summary.csv"):
        assert f"{file_hash(folder.out / name)}  {name}\n" in locked


def test_the_page_tells_what_was_tried_and_chosen(folder: Folder) -> None:
    write_search(folder.out)
    text = (folder.out / "summary.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["lora", "train.lr", RATES, f"{RATES}\\*", "0.0001", "yes"] in rows
    assert ["", "method.rank", "4, 8, 16", "4, 8, 16", "8", "the last of the list"] in rows
    lost = next(row for row in rows if row[:1] == ["lost"])
    assert lost[1:4] == ["1", "1", "all diverged"]
    assert "lost: trials are missing." in text
    assert "first\\_tasks=3" in text or "first_tasks=3" in text
    assert ["lora", "mean of Transfer and Last", "=", "63.8", "47.5", "70.0", "80.0"] in rows


def test_the_figures_name_the_methods(folder: Folder) -> None:
    written = {path.name: path for path in write_search(folder.out)}
    for name in ("fronts", "learned", "rates", "budget"):
        svg = written[f"{name}.svg"].read_text()
        assert "<!-- lora -->" in svg, name
    assert "<!-- frozen -->" in written["fronts.svg"].read_text()
    assert "<!-- frozen -->" not in written["rates.svg"].read_text(), "it has no learning rate"


def test_upper_bounds_stretch_no_axis(folder: Folder) -> None:
    folder.method("joint", [({"train.lr": 1e-3}, shifted(0.3))], chosen=0)
    written = {path.name: path.read_text() for path in write_search(folder.out)}
    assert "<!-- joint -->" in written["rates.svg"]
    for name in ("fronts", "learned", "budget"):
        assert "<!-- lora -->" in written[f"{name}.svg"]
        assert "<!-- joint -->" not in written[f"{name}.svg"]
    assert "joint" in written["summary.md"]


def remove(folder: Folder) -> None:
    (folder.out / "trials.json").unlink()


def cut(folder: Folder) -> None:
    (folder.out / "trials.json").write_text('{"format": "clbench-tu')


def other_format(folder: Folder) -> None:
    folder.content["format"] = "else"
    folder.save()


def unknown_trial(folder: Folder) -> None:
    folder.content["methods"]["lora"]["chosen"] = 9
    folder.save()


def elsewhere(folder: Folder) -> None:
    folder.content["methods"]["lora"]["trials"][0]["result"] = "../../lora-seed0-0.json"
    folder.save()


def other_score(folder: Folder) -> None:
    folder.content["methods"]["lora"]["trials"][0]["score"] = 0.9
    folder.save()


def no_result(folder: Folder) -> None:
    (folder.out / "results" / "lora-seed1-00000000.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, "there is no search in"),
        (cut, r"trials.json is damaged, not valid JSON .*: put it back"),
        (other_format, r"trials.json is damaged \(format: "),
        (unknown_trial, "damaged: lora has no trial 9"),
        (elsewhere, "is no name of a result file"),
        (other_score, r"has average 0.7, trials.json says 0.9: they are not of the same search"),
        (no_result, "there is no result file .*lora-seed1"),
    ],
)
def test_damaged_files_are_user_errors(
    folder: Folder, damage: Callable[[Folder], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(ClbenchError, match=message):
        write_search(folder.out)
    assert not (folder.out / "summary.md").exists()
