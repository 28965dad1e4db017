"""Results made up for the report tests."""

from __future__ import annotations

import pytest

from clbench.core.results.result import RunResult
from tests.made_up import VALUES, make_result, shifted


@pytest.fixture
def study() -> list[RunResult]:
    """A small study: one method with two seeds, one in two variants, one that never trains."""
    frozen = [VALUES[0]] * 4
    from_elsewhere = {
        "needs": ("replay", "reference-images"),
        "external": 40_000,
        "reference": "ImageNet-1k",
    }
    return [
        make_result("nusa", 0, **from_elsewhere),
        make_result("nusa", 1, shifted(-0.05), **from_elsewhere),
        make_result(
            "lora_r", 0, shifted(-0.1), {"rank": 8, "scale": 1.0}, config_hash="aaaa0000", stored=0
        ),
        make_result(
            "lora_r", 0, shifted(-0.2), {"rank": 64, "scale": 1.0}, config_hash="bbbb0000", stored=0
        ),
        make_result("zero-shot", 0, frozen, trainable=0, stored=0, training_seconds=0.0, steps=0),
    ]
