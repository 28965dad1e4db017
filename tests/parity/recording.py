"""Notes by how much what the tests compute differs from golden tensors.

The tests stay as they are: every `torch.testing.assert_close` and `torch.equal` whose other side
comes out of a golden file is noted, together with what was allowed.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from tests.golden import golden

ROOT = Path(__file__).parents[2]
PASSED_ON = (Path(__file__), golden.FOLDER, Path(torch.__file__).parent)
"""Where functions are that compare for a test."""
DEFAULTS = {torch.float32: (1e-5, 1.3e-6), torch.float64: (1e-7, 1e-7)}
"""Absolute and relative tolerance of `torch.testing.assert_close` where none is given."""


@dataclass
class Quantity:
    """All comparisons of one quantity in one test file.

    Attributes:
        test: the test file, from the root of the repository.
        golden: names of the golden files.
        quantity: names of the golden tensors, with stars for numbers; what the test compares with,
            as it is written there, if that was computed from golden tensors.
        comparisons: how many tensors were compared.
        elements: how many numbers.
        atol: the loosest absolute tolerance; 0 where equality was asked for.
        rtol: the loosest relative tolerance.
        difference: the largest absolute difference.
        relative: the largest absolute difference over the largest golden entry of its tensor.
        share: the largest difference over what was allowed for that entry; 0 where equality was
            asked for.
    """

    test: str
    golden: list[str]
    quantity: str
    comparisons: int = 0
    elements: int = 0
    atol: float = 0.0
    rtol: float = 0.0
    difference: float = 0.0
    relative: float = 0.0
    share: float = 0.0

    def add(self, found: Tensor, expected: Tensor, atol: float, rtol: float) -> None:
        """Take in a comparison."""
        wanted = expected.detach().double()
        gap = (found.detach().double() - wanted).abs()
        allowed = atol + rtol * wanted.abs()
        self.comparisons += 1
        self.elements += wanted.numel()
        self.atol, self.rtol = max(self.atol, atol), max(self.rtol, rtol)
        if wanted.numel():
            largest = gap.max().item()
            self.difference = max(self.difference, largest)
            self.relative = max(self.relative, largest / (wanted.abs().max().item() or 1.0))
            shares = torch.where(gap > 0, gap / allowed.clamp(min=1e-300), 0.0)
            self.share = max(self.share, shares.max().item() if atol or rtol else 0.0)


class Recorder:
    """A pytest plugin; `quantities` fills while the tests run."""

    def __init__(self) -> None:
        self.quantities: dict[tuple[str, str, str], Quantity] = {}
        self._origins: dict[int, tuple[str, str, Tensor]] = {}
        self._test, self._opened = "", set[str]()

    def rows(self) -> list[dict[str, Any]]:
        """The quantities, sorted, with three significant digits."""
        rows = [asdict(quantity) for _, quantity in sorted(self.quantities.items())]
        return [{key: _rounded(value) for key, value in row.items()} for row in rows]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Note what is compared meanwhile."""
        close, equal = torch.testing.assert_close, torch.equal

        def assert_close(actual: Any, expected: Any, **options: Any) -> None:
            close(actual, expected, **options)
            atol, rtol = options.get("atol"), options.get("rtol")
            if isinstance(actual, Tensor) and isinstance(expected, Tensor):
                defaults = DEFAULTS.get(expected.dtype, (0.0, 0.0))
                tolerances = defaults if atol is None or rtol is None else (atol, rtol)
                self._note(actual, expected, *tolerances)

        def same(first: Tensor, second: Tensor) -> bool:
            answer = equal(first, second)
            if answer and self._origin(second):
                self._note(first, second, 0.0, 0.0)
            return answer

        golden.READERS.append(self._remember)
        try:
            with (
                mock.patch.object(torch.testing, "assert_close", assert_close),
                mock.patch.object(torch, "equal", same),
            ):
                yield
        finally:
            golden.READERS.remove(self._remember)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note what a test compares."""
        self._test = item.path.relative_to(ROOT).as_posix()
        self._opened = set()
        try:
            return (yield)
        finally:
            self._test = ""

    def _remember(self, name: str, tensors: dict[str, Tensor]) -> None:
        # Tensors are kept, so that no other ever lies where one of them lay.
        self._opened.add(name)
        for key, tensor in tensors.items():
            self._origins[tensor.untyped_storage().data_ptr()] = (name, key, tensor)

    def _origin(self, tensor: Tensor) -> tuple[str, str] | None:
        """File and name of the golden tensor that this one is, or is a part of."""
        found = self._origins.get(tensor.untyped_storage().data_ptr())
        return None if found is None else found[:2]

    def _note(self, found: Tensor, expected: Tensor, atol: float, rtol: float) -> None:
        origin = self._origin(expected)
        if origin is not None:
            files, quantity = [origin[0]], re.sub(r"\d+", "*", origin[1])
        elif self._opened:
            files, quantity = sorted(self._opened), _written(inspect.currentframe())
        else:
            return
        key = (self._test, ",".join(files), quantity)
        row = self.quantities.setdefault(key, Quantity(self._test, files, quantity))
        row.add(found, expected, atol, rtol)


def _written(frame: FrameType | None) -> str:
    """The second argument of the call in a test that led here, as it is written there."""
    while frame is not None and _passes_on(frame):
        frame = frame.f_back
    if frame is None:
        return ""
    first, last, start, end = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    if first is None or last is None:
        return ""
    lines = [linecache.getline(frame.f_code.co_filename, n) for n in range(first, last + 1)]
    lines[-1] = lines[-1].encode()[:end].decode()
    call = ast.parse("".join(lines).encode()[start:].decode(), mode="eval").body
    return ast.unparse(call.args[1]) if isinstance(call, ast.Call) and len(call.args) > 1 else ""


def _passes_on(frame: FrameType) -> bool:
    path = Path(frame.f_code.co_filename)
    return frame.f_code.co_name.startswith("assert_") or any(
        path.is_relative_to(place) for place in PASSED_ON
    )


def _rounded(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) else value
