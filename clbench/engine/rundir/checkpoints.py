"""Checkpoints of a run: safetensors beside JSON, hashed, read back, the last good one kept.

A checkpoint is two files of the same stem. The tensors are written first; the JSON file that names
their hash makes the checkpoint valid, and holds a hash of itself. Nothing in them is executed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clbench.core.errors import ClbenchError
from clbench.core.files import (
    content_hash,
    file_hash,
    make_folder,
    sync_folder,
    write_atomic,
)
from clbench.engine.rundir.state_tree import pack, unpack

FORMAT = "clbench-checkpoint/1"
FOLDER = "checkpoints"
KEPT = 2
"""Newest checkpoints that are kept, besides the starts of the tasks that they are in."""

_NAME = re.compile(r"task-(\d{3,})(?:-step-(\d{6,}))?\.json")


@dataclass(frozen=True, order=True)
class Position:
    """How far a run has come: tasks learned, and optimizer steps into the next.

    >>> Position(3), Position(3, 50) < Position(4), Position(3, 50).stem
    (Position(learned=3, step=0), True, 'task-003-step-000050')
    """

    learned: int
    step: int = 0

    @property
    def stem(self) -> str:
        """Name of the files without suffix."""
        return f"task-{self.learned:03d}" + (f"-step-{self.step:06d}" if self.step else "")

    @property
    def start(self) -> Position:
        """Where the task began."""
        return Position(self.learned)


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from.

    Attributes:
        position: how far the run had come.
        method: state dict of the method.
        counters: JSON values that the run counts with.
        training: state of the trainer within a task; None between tasks.
    """

    position: Position
    method: Mapping[str, Any]
    counters: Mapping[str, Any]
    training: Mapping[str, Any] | None = None


class DamagedCheckpointError(Exception):
    """A checkpoint is missing, cut short or changed; the message says how."""


class CheckpointStore:
    """The checkpoints of one run directory.

    Args:
        run: the run directory.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER

    def positions(self) -> list[Position]:
        """Where checkpoints claim to be, newest first; whether they are sound, `load` says."""
        found = [_NAME.fullmatch(path.name) for path in self.folder.glob("task-*.json")]
        return sorted(
            (Position(int(match[1]), int(match[2] or 0)) for match in found if match), reverse=True
        )

    def newest_sound(self) -> Position | None:
        """Where the newest checkpoint is that can be read; None if none can."""
        for position in self.positions():
            with suppress(DamagedCheckpointError):
                return self.load(position).position
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, read it back, and only then drop old ones.

        Raises:
            ClbenchError: the disk cannot be written, or gives back something else. Older
                checkpoints are untouched.
        """
        stem = checkpoint.position.stem
        tree = {"method": dict(checkpoint.method), "training": checkpoint.training}
        tensors, skeleton = pack(tree)
        target = self.folder / f"{stem}.safetensors"
        temporary = self.folder / f".{stem}.{secrets.token_hex(4)}.tmp"
        try:
            make_folder(self.folder)
            self._clean()
            save_file(tensors, temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            _compare(temporary, tensors)
            digest, size = file_hash(temporary), temporary.stat().st_size
            self._path(checkpoint.position).unlink(missing_ok=True)  # it names the old tensors
            temporary.replace(target)
            sync_folder(self.folder)
        except (OSError, SafetensorError, DamagedCheckpointError) as error:
            temporary.unlink(missing_ok=True)
            reason = getattr(error, "strerror", None) or error
            raise ClbenchError(f"cannot write the checkpoint {target}: {reason}") from error
        content = {
            "format": FORMAT,
            "learned": checkpoint.position.learned,
            "step": checkpoint.position.step,
            "tensors": {"bytes": size, "sha256": digest},
            "counters": dict(checkpoint.counters),
            "state": skeleton,
        }
        text = json.dumps({"sha256": content_hash(content), "content": content})
        write_atomic(self._path(checkpoint.position), text)
        self._prune(checkpoint.position)

    def load(self, position: Position) -> Checkpoint:
        """Read a checkpoint and check both hashes.

        Raises:
            DamagedCheckpointError: it is missing or not what was written.
        """
        content = self._content(position)
        path = self.folder / f"{position.stem}.safetensors"
        try:
            stated = content["tensors"]
            if path.is_symlink() or path.stat().st_size != stated["bytes"]:
                raise DamagedCheckpointError(f"{path} is cut short")
            if file_hash(path) != stated["sha256"]:
                raise DamagedCheckpointError(f"{path} does not have the hash of what was written")
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            tree = unpack(tensors, content["state"])
            return Checkpoint(position, tree["method"], content["counters"], tree["training"])
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise DamagedCheckpointError(f"{path} cannot be read: {error}") from error

    def keep_only(self, position: Position) -> None:
        """Drop all checkpoints but one: the run is complete."""
        for found in self.positions():
            if found != position:
                self._drop(found)

    def drop_after(self, position: Position | None) -> None:
        """Forget checkpoints beyond a position (all for None), so that none is mistaken later."""
        for found in self.positions():
            if position is None or found > position:
                self._drop(found)

    def _content(self, position: Position) -> dict[str, Any]:
        """The JSON part, checked against its own hash and its name."""
        path = self._path(position)
        try:
            if path.is_symlink():
                raise DamagedCheckpointError(f"{path} is a symbolic link")
            outer = json.loads(path.read_text(encoding="utf-8"))
            content: dict[str, Any] = outer["content"]
            sound = content_hash(content) == outer["sha256"]
            named = (content["format"], content["learned"], content["step"])
        except (OSError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise DamagedCheckpointError(f"{path} cannot be read: {error}") from error
        if not sound or named != (FORMAT, position.learned, position.step):
            raise DamagedCheckpointError(f"{path} is not what was written")
        return content

    def _path(self, position: Position) -> Path:
        return self.folder / f"{position.stem}.json"

    def _prune(self, newest: Position) -> None:
        older = [position for position in self.positions() if position < newest]
        kept = {newest.start, *older[: KEPT - 1]}
        kept |= {position.start for position in kept}
        for position in older:
            if position not in kept:
                self._drop(position)

    def _drop(self, position: Position) -> None:
        # The JSON file first: tensors without it are no checkpoint, the other way round is damage.
        for path in (self._path(position), self.folder / f"{position.stem}.safetensors"):
            path.unlink(missing_ok=True)

    def _clean(self) -> None:
        """Remove what writes that were killed have left."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink()
        valid = {path.stem for path in self.folder.glob("task-*.json")}
        for path in self.folder.glob("task-*.safetensors"):
            if path.stem not in valid:
                path.unlink()


def _compare(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read back what was written.

    Raises:
        DamagedCheckpointError: the disk returns something else.
    """
    with safe_open(path, framework="pt") as file:
        for name, written in tensors.items():
            found = file.get_tensor(name)
            # As bytes: NaN is unequal to itself.
            if found.shape != written.shape or not torch.equal(
                found.reshape(-1).view(torch.uint8), written.reshape(-1).view(torch.uint8)
            ):
                raise DamagedCheckpointError(f"the disk gives back another {name}")
