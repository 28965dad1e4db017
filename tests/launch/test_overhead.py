"""What was measured of launchers is what the guide shows."""

from __future__ import annotations

import json
from pathlib import Path

from tests.launch import throughput
from tests.launch.overhead import PAGE, measure_cells, read, table


def test_the_guide_shows_what_was_measured() -> None:
    measured = read()
    assert {(one["launcher"], one["cells"] >= 1000) for one in measured} >= {
        ("local", True),
        ("ray", True),
    }
    assert table(measured) in PAGE.read_text("utf-8")


def test_cells_that_do_nothing_are_measured(tmp_path: Path) -> None:
    spent = measure_cells("local", 3, tmp_path)
    assert len(list(tmp_path.glob("toy/nothing/*/result.json"))) == 3
    assert all(value > 0 for value in spent.values())
    line = table([{"launcher": "local", "kind": "processes", "cells": 3, **spent}]).splitlines()[-1]
    assert line.startswith("| local | processes | 3 | ")


def test_the_guide_shows_the_throughput() -> None:
    measured = json.loads(throughput.FILE.read_text())
    words = throughput.paragraph(measured)
    assert words in PAGE.read_text("utf-8")
    one, two = (
        {"wall_seconds": wall, "jobs": jobs, "accuracies": {"lora/seed0": [[accuracy]]}}
        for wall, jobs, accuracy in ((120.0, 1, 0.5), (80.0, 2, 0.25))
    )
    made_up = {"methods": "lora", "seeds": "0", "cores": 2, "measured": [one, two]}
    words = throughput.paragraph(made_up)
    assert "took 2.0 minutes with `--jobs 1` and 1.3 with `--jobs 2`: 1.50 times" in words
    assert "accuracies of 0 of them" in words
