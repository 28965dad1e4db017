"""The measured costs of launchers are those that the guide shows."""

from __future__ import annotations

from pathlib import Path

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
