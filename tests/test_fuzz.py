"""Damaged inputs of every format are read or refused: no traceback, no memory beyond their size.

About 1,000 inputs by default, 10,000 by ``make fuzz``, which is meant for the night.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.formats import FORMATS, is_read
from tests.fuzz.memory import peak, reset_peak
from tests.fuzz.strategies import checked

INPUTS = {**dict.fromkeys(FORMATS, 90), "metadata": 60, "settings": 40}
"""1,000 in all; the dearest less."""
ALLOWED = 300 * 2**20


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_inputs(name: str, tmp_path: Path) -> None:
    outcomes = []

    @checked(INPUTS[name], FORMATS[name].inputs)
    def feed(content: Any) -> None:
        outcomes.append(is_read(FORMATS[name], content, tmp_path / "input"))

    reset_peak()
    before = peak()
    feed()
    assert peak() - before < ALLOWED
    assert len(outcomes) > INPUTS[name] // 2
    assert not all(outcomes)


def test_the_counts_stand_for_a_thousand_inputs() -> None:
    assert 950 <= sum(INPUTS.values()) <= 1050
