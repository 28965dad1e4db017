"""The directory of a run: who may write to it, and how it is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import yaml

from clbench.core.errors import ClbenchError
from clbench.core.files import make_folder, sync_folder, write_atomic
from clbench.core.foreign.names import printable
from clbench.core.redaction import redact
from clbench.core.results.correctness import FOLDER as CORRECT
from clbench.core.results.manifest import FILE_NAME as MANIFEST
from clbench.core.results.manifest import write_manifest
from clbench.core.results.result import ASIDE, RunResult
from clbench.core.results.tracker import LOSS_FILE
from clbench.core.settings import RunSettings
from clbench.engine.rundir.checkpoints import FOLDER as CHECKPOINTS
from clbench.engine.rundir.checkpoints import CheckpointStore, Position
from clbench.engine.rundir.ownership import Owner, Ownership

RESULT = "result.json"
FOLDERS = (CHECKPOINTS, CORRECT)
"""Folders of a run directory that this process writes to; trackers have their own."""


def run_path(runs_dir: Path, settings: RunSettings) -> Path:
    """``<runs>/<benchmark>/<method>/seed<k>-<hash>``: the same settings, the same folder."""
    leaf = f"seed{settings.seed}-{settings.fingerprint()}"
    benchmark, method = settings.benchmark.name, settings.method.name
    return runs_dir / folder_name(benchmark) / folder_name(method) / leaf


def folder_name(name: str) -> str:
    """A benchmark's or method's name as one folder, which leads nowhere else.

    >>> folder_name("mtil-5shot"), folder_name("folder:/data/birds"), folder_name("..")
    ('mtil-5shot', 'folder-data-birds', '-')
    """
    return re.sub(r"[^\w.-]+", "-", name).lstrip(".") or "-"


class RunDirectory:
    """A run directory, locked while the run goes on. Use as a context manager.

    Args:
        path: the directory; created on entry.
        root: the folder of all runs; links below it are refused.

    Attributes:
        checkpoints: the run's checkpoints.
        dead_owner: the process that died holding the directory, if one did.

    Raises:
        ClbenchError: on entry, if it cannot be written or another process holds it.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self.path = path
        self.root = path if root is None else root
        self.checkpoints = CheckpointStore(path)
        self.dead_owner: Owner | None = None
        self._ownership: Ownership | None = None

    def __enter__(self) -> RunDirectory:
        try:
            refuse_links(self.path, self.root)
            make_folder(self.path)
            self._ownership = Ownership(self.path)
            self.dead_owner = self._ownership.acquire()
            self._clean()
        except OSError as error:
            reason = error.strerror or str(error)
            raise ClbenchError(
                f"cannot write to the run directory {self.path}: {reason}; "
                "choose another place with --runs-dir"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ownership is not None:
            self._ownership.release()

    def require_free(self) -> None:
        """Check, before work that takes long, that no other process holds the directory.

        Raises:
            ClbenchError: one does.
        """
        if self.path.is_dir():
            refuse_links(self.path, self.root)
            Ownership(self.path).require_free()

    def put_aside(self) -> Path | None:
        """Move an earlier run out of the way; nothing of it is lost.

        Returns:
            Where it is now, in the folder ``aside`` beside it; None if there was none.

        Raises:
            ClbenchError: another process holds the directory, or it cannot be moved.
        """
        if not self.path.is_dir():
            return None
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        target = self.path.parent / ASIDE / f"{self.path.name}-{stamp}"
        try:
            with self:
                target.parent.mkdir(exist_ok=True)
                self.path.rename(target)
        except OSError as error:
            raise ClbenchError(
                f"cannot put {self.path} aside: {error.strerror or error}; move it yourself, or "
                "choose another place with --runs-dir"
            ) from error
        return target

    def _clean(self) -> None:
        """Remove what writes that were killed have left."""
        for folder in (self.path, self.path / CORRECT):
            for pattern in (".*.tmp", ".*.now"):
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)

    def result(self) -> RunResult | None:
        """The result so far, if any.

        Raises:
            ClbenchError: the file is damaged; the message says how to go on.
        """
        path = self.path / RESULT
        try:
            return RunResult.load(path) if path.exists() else None
        except ClbenchError as error:
            found = self.checkpoints.newest_sound()
            beside = "no sound checkpoint lies beside it"
            if found is not None:
                beside = f"the checkpoint {found.stem} beside it is sound: with a copy of the file "
                beside += "from a backup, the same command goes on from there"
            raise ClbenchError(
                f"{error}. As for this run, {beside}; --fresh starts it anew and keeps all of this "
                f"in {self.path.parent / ASIDE}"
            ) from error

    def save_settings(self, settings: RunSettings) -> None:
        """Write ``config.yaml``."""
        text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
        write_atomic(self.path / "config.yaml", text)

    def save_result(self, result: RunResult) -> None:
        """Write ``result.json``."""
        self.require()
        result.save(self.path / RESULT)

    @property
    def sealed(self) -> bool:
        """Whether the run was finished, and all that it wrote is listed in its manifest."""
        return (self.path / MANIFEST).exists()

    def seal(self) -> None:
        """Write the manifest: the last write of a run."""
        write_manifest(self.path)

    def unseal(self) -> None:
        """Remove a manifest whose run is made again."""
        (self.path / MANIFEST).unlink(missing_ok=True)

    def log(self, text: str) -> None:
        """Append a line to ``log.txt``."""
        self._append("log.txt", printable(text))

    def record(self, values: Mapping[str, Any]) -> None:
        """Append one JSON object to ``metrics.jsonl``."""
        self._append(LOSS_FILE, json.dumps(dict(values)))

    def drop_records(self, position: Position) -> None:
        """Forget the records beyond a position, and what a crash cut off in the middle."""
        path = self.path / LOSS_FILE
        if not path.exists():
            return
        limit = (position.learned + 1, position.step)
        kept: list[str] = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
                place = record["task"], record.get("step", 0)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                break
            if place <= limit:
                kept.append(line)
        write_atomic(path, "".join(f"{line}\n" for line in kept))

    def sync_records(self) -> None:
        """Make the records so far survive a power cut."""
        path = self.path / LOSS_FILE
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sync_folder(self.path)  # the file may be new

    def require(self) -> None:
        """Check that the directory is still there.

        Raises:
            ClbenchError: somebody removed it, or its disk is gone.
        """
        if not self.path.is_dir():
            raise ClbenchError(f"the run directory {self.path} disappeared during the run")

    def _append(self, name: str, line: str) -> None:
        try:
            with open_append(self.path / name) as file:
                file.write(f"{redact(line)}\n")
        except OSError as error:
            raise ClbenchError(f"cannot write {self.path / name}: {error.strerror}") from error


def refuse_links(path: Path, root: Path) -> None:
    """Refuse a run directory that leads somewhere else.

    Args:
        path: the run directory.
        root: the folder of all runs, which may itself be a link.

    Raises:
        ClbenchError: the directory, a folder between it and `root`, or something in it is a link.
    """
    entries = [path, *(folder for folder in path.parents if root in folder.parents)]
    for folder in (path, *(path / name for name in FOLDERS)):
        if folder.is_dir() and not any(entry.is_symlink() for entry in entries):
            entries += folder.iterdir()
    if links := [entry for entry in entries if entry.is_symlink()]:
        raise ClbenchError(
            f"{links[0]} is a symbolic link, which a run directory does not follow: remove it, or "
            "choose another place with --runs-dir"
        )


def open_append(path: Path) -> TextIO:
    """Open a file to append to, unless it is a link.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o666), "a", encoding="utf-8")
