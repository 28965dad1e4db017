"""What a grid leaves in the folder of its runs, so that anybody who sees it knows how it stands.

``.launch/plans/<hash>.json`` lists the cells of a grid, ``.launch/cells/<key>.json`` says what
became of a cell, and the ``.log`` beside it holds what it printed. Keys have the folders of the run
directories, so that no folder grows with the grid.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clbench.core.errors import ClbenchError
from clbench.core.files import content_hash, write_atomic
from clbench.core.redaction import redact
from clbench.core.results.result import LAUNCHED
from clbench.launch.cells import Cell, Outcome, Resources

FOLDER = ".launch"
LINES = 10
"""Lines at the end of a log that are shown where a cell failed."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
TAIL = 8192
"""Bytes at the end of a log that are looked at for them."""


@dataclass(frozen=True)
class CellRecord:
    """What became of a cell so far.

    Attributes:
        state: ``queued``, ``running``, or how its last attempt ended.
        launcher: who made it.
        where: node and devices.
        started: when its last attempt began, UTC.
        ended: when that ended; empty while it runs.
        seconds: wall time of the attempt that ended it.
        code: exit code of the last attempt.
        failures: attempts that failed.
        reason: what is known of the last failure besides the log.
    """

    state: str = ""
    launcher: str = ""
    where: str = ""
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    code: int | None = None
    failures: int = 0
    reason: str = ""


class Records:
    """The records in a folder of runs.

    Args:
        runs_dir: the folder; it need not exist.
    """

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.folder = runs_dir / FOLDER

    def log(self, cell: Cell) -> Path:
        """Where the output of a cell goes."""
        return self.folder / "cells" / f"{cell.key}.log"

    def last_lines(self, cell: Cell) -> list[str]:
        """The last lines of a cell's output, without secrets; none if there is no log."""
        try:
            with self.log(cell).open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [redact(line) for line in text.splitlines() if line.strip()][-LINES:]

    def of(self, key: str) -> CellRecord:
        """What became of a cell; an empty record where nothing can be read."""
        try:
            content = json.loads(self._cell(key).read_text(encoding="utf-8"))
            return CellRecord(**content)
        except (OSError, ValueError, TypeError, RecursionError):
            return CellRecord()

    def queued(self, cell: Cell, launcher: str) -> None:
        """An attempt at a cell waits for its turn."""
        before = self.of(cell.key)
        self._write(cell, replace(before, state="queued", launcher=launcher, where="", reason=""))

    def started(self, cell: Cell, launcher: str, where: str) -> None:
        """An attempt at a cell begins."""
        before = self.of(cell.key)
        record = replace(
            before, state="running", launcher=launcher, where=where, started=_now(), ended=""
        )
        self._write(cell, record)

    def ended(self, cell: Cell, outcome: Outcome, code: int | None, reason: str = "") -> CellRecord:
        """An attempt at a cell has ended."""
        before = self.of(cell.key)
        failures = before.failures + (outcome is Outcome.FAILED)
        ended = _now()
        record = replace(
            before,
            state=str(outcome),
            ended=ended,
            seconds=_between(before.started, ended),
            code=code,
            failures=failures,
            reason=reason,
        )
        self._write(cell, record)
        return record

    def save_plan(self, cells: Sequence[Cell], launcher: str, resources: Resources) -> Path:
        """Note that these cells are wanted.

        Returns:
            The file; the same cells, the same file.
        """
        content = {
            "host": socket.gethostname(),
            "saved": _now(),
            "launcher": launcher,
            "resources": asdict(resources),
            "cells": [cell.plain() for cell in cells],
        }
        path = self.folder / "plans" / f"{plan_hash(cells)}.json"
        write_atomic(path, json.dumps(content, indent=1) + "\n")
        return path

    def plans(self) -> list[dict[str, Any]]:
        """All plans, the oldest first.

        Raises:
            ClbenchError: one of them is damaged.
        """
        found = []
        for path in (self.folder / "plans").glob("*.json"):
            content = read_plan(path)
            found.append((content["saved"], content))
        return [content for _, content in sorted(found, key=lambda pair: pair[0])]

    def drop_plan(self, cells: Sequence[Cell]) -> None:
        """Nothing is wanted of these cells any more."""
        with suppress(OSError):
            (self.folder / "plans" / f"{plan_hash(cells)}.json").unlink()

    def _cell(self, key: str) -> Path:
        return self.folder / "cells" / f"{key}.json"

    def _write(self, cell: Cell, record: CellRecord) -> None:
        write_atomic(self._cell(cell.key), json.dumps(asdict(record)) + "\n")


def plan_hash(cells: Sequence[Cell]) -> str:
    """Twelve hex digits over the run directories of a grid."""
    return content_hash([cell.key for cell in cells])[:12]


def read_plan(path: Path) -> dict[str, Any]:
    """A plan, with its cells as `Cell`.

    Raises:
        ClbenchError: it is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        cells = [Cell.of(cell) for cell in content["cells"]]
        resources = Resources(**content["resources"])
        return {**content, "saved": str(content["saved"]), "cells": cells, "resources": resources}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ClbenchError(f"{path} is damaged ({error}): delete it") from error


def environment_of(launcher: str, threads: int, shared: bool) -> dict[str, str]:
    """Variables of a cell's process: its threads, and what its result says about the launcher."""
    told = json.dumps({"launcher": launcher, "shared": shared})
    return {**dict.fromkeys(THREADS, str(threads)), LAUNCHED: told}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _between(started: str, ended: str) -> float:
    if not started:
        return 0.0
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
