"""Misspelt names get a suggestion, words that resemble nothing get none."""

from __future__ import annotations

import pytest

from clbench.core.errors import unknown_name

METHODS = ["finetune", "gnsp", "lora", "milora", "nusa", "zeroshot"]
KEYS = ["method.rank", "method.alpha", "method.dropout", "train.lr"]


@pytest.mark.parametrize(
    ("name", "valid", "meant"),
    [
        ("nusaa", METHODS, "nusa"),
        ("LORA", METHODS, "lora"),
        ("zero-shot", METHODS, "zeroshot"),
        ("fine-tune", METHODS, "finetune"),
        ("method.rnak", KEYS, "method.rank"),
        ("metod.rank", KEYS, "method.rank"),
        ("rank", KEYS, None),
        ("method.colour", KEYS, None),
        ("method.batch_size", KEYS, None),
        ("transformer", METHODS, None),
        ("banana", METHODS, None),
        ("resume", METHODS, None),
        ("x", [], None),
    ],
)
def test_only_what_resembles_is_suggested(name: str, valid: list[str], meant: str | None) -> None:
    text = str(unknown_name("name", name, valid))
    assert ("did you mean" in text) == (meant is not None)
    assert meant is None or f"did you mean {meant!r}?" in text
    assert all(other in text for other in valid)
