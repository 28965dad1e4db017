"""The kill test can be made: what it hooks into is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.chaos import Chain, earlier, write_report


@pytest.mark.slow
def test_a_watched_process_notes_what_it_does(tmp_path: Path) -> None:
    note = tmp_path / "note"
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos_child", "list", "benchmarks"],
        env={**os.environ, "CHAOS_NOTE": str(note)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mini" in done.stdout
    assert note.read_text() == "starting"


def test_chains_of_an_earlier_call_are_kept_without_those_of_methods_tried_again(
    tmp_path: Path,
) -> None:
    assert earlier(tmp_path, []) == []
    chains = [Chain("lora", 0, "1234567", ["starting"], 2), Chain("er", 1, "1234567", [], 1)]
    write_report(chains, tmp_path)
    assert earlier(tmp_path, ["er"]) == chains[:1]
    assert "| lora | 0 | 1234567 | 1 | 2 | bit-identical |" in (tmp_path / "README.md").read_text()
    stored = json.loads((tmp_path / "outcome.json").read_text())
    assert stored["chains"] == [asdict(chain) for chain in chains]
