"""Runs the tests that hold methods against golden tensors and keeps what they measured."""

from __future__ import annotations

import ast
import json
import platform
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from tests.parity.recording import ROOT, Recorder

FOLDERS = ("tests/methods", "tests/clip")
OPENERS = ("read", "opened", "distilling")
"""What opens a golden file, as the tests import it from ``tests.golden``."""
OPTIONS = ("-n0", "-q", "-W", "ignore::pytest.PytestAssertRewriteWarning")
"""In this process, which has imported what pytest would like to see first."""


def measure(file: Path) -> None:
    """Write a JSON file with every quantity that the tests compare with golden tensors.

    Raises:
        ClbenchError: a test fails.
    """
    recorder = Recorder()
    with recorder.active():
        code = pytest.main([*OPTIONS, *_tests()], plugins=[recorder])
    if code:
        raise ClbenchError(f"{file} stays as it is: the tests have to pass first")
    made = {"torch": torch.__version__, "machine": platform.machine()}
    content: dict[str, Any] = {"made": made, "quantities": recorder.rows()}
    write_atomic(file, json.dumps(content, indent=1) + "\n")


def golden_tests(source: str) -> list[str]:
    """The names of the tests of a file that read golden files, by themselves or by a helper."""
    names: dict[str, set[str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            parts = list(ast.walk(node))
            used = {part.id for part in parts if isinstance(part, ast.Name)}
            names[node.name] = used | {part.arg for part in parts if isinstance(part, ast.arg)}
    reading: set[str] = set()
    known = set(OPENERS)
    while known:
        reading |= known
        known = {name for name, used in names.items() if used & reading} - reading
    return [name for name in names if name.startswith("test_") and name in reading]


def _tests() -> list[str]:
    """The node ids of the tests that read golden files."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("test_*.py"))]
    texts = {path: path.read_text("utf-8") for path in files}
    return [
        f"{path}::{name}"
        for path, text in texts.items()
        if "tests.golden" in text
        for name in golden_tests(text)
    ]
