"""Reads what W&B recorded offline: the records of a ``.wandb`` file.

The file is a log of 32 KiB blocks. It starts with 7 bytes that identify it; every piece of a record
has a header of 7 bytes: checksum (4), length (2), and kind (1: whole record, 2: first, 3: middle,
4: last piece). A rest of a block that is too short for a header is padding.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024


def records(path: Path) -> Iterator[Any]:
    """The protocol-buffer records of a file."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@dataclass
class RecordedRun:
    """What one file says about a run."""

    run: Any = None
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def read_runs(folder: Path) -> list[RecordedRun]:
    """All offline runs in a run directory, in the order of their start."""
    import wandb

    wandb.teardown()  # a run that is finished may not be on the disk before
    found = [read_run(path) for path in folder.glob("wandb/offline-run-*/*.wandb")]
    return sorted(found, key=lambda one: one.run.start_time.ToNanoseconds())


def read_run(path: Path) -> RecordedRun:
    """All that a file says, later records over earlier ones."""
    found = RecordedRun()
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            found.config |= _values(record.run.config.update)
        elif kind == "history":
            found.history.append(_values(record.history.item))
        elif kind == "summary":
            found.summary |= _values(record.summary.update)
        elif kind == "config":
            found.config |= _values(record.config.update)
        elif kind == "metric" and record.metric.step_metric:
            found.axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def _values(items: Any) -> dict[str, Any]:
    return {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for item in items
        if item.value_json
    }
