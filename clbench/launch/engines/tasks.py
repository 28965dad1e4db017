"""What Ray runs: one attempt at a cell on some node, and the depot of the driver's files."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clbench.launch.engines.children import Children, wait_for

BEAT = 1.0
"""Seconds between two looks at the process, and at whether it shall stop."""
EXCHANGE = 60.0
"""Seconds between two times that a node without the shared folder gives back what it has."""
_NURSERIES: dict[tuple[int, bool, Path | None], Children] = {}
CHUNK = 1 << 24
"""Bytes that are sent at once."""


@dataclass(frozen=True)
class Job:
    """One attempt at a cell.

    Attributes:
        key: names the cell.
        command: whole command line; its last word is the folder of all runs.
        environment: variables to add.
        folder: where the driver works.
        runs_dir: folder of all runs as the command has it.
        home: the same from the root.
        log: file for the output.
        token: file whose content is its name; a node that reads it sees the driver's folders.
        threads: of the run.
        warm: whether the worker imports what runs need once for all its runs.
    """

    key: str
    command: list[str]
    environment: dict[str, str]
    folder: str
    runs_dir: str
    home: str
    log: str
    token: str
    threads: int
    warm: bool


class Depot:
    """The driver's end of tasks: whether they shall stop, and files of nodes that see others.

    An actor on the machine that drives. Files are written under another name and renamed when they
    are whole, so that what was there before stays good.
    """

    def __init__(self) -> None:
        self.stopping = False

    def stop(self) -> None:
        """From now on, runs shall save and end."""
        self.stopping = True

    def shall_stop(self) -> bool:
        """Whether runs shall save and end."""
        return self.stopping

    def files(self, folder: str) -> dict[str, str]:
        """Files of a run directory, below it, with what tells whether they changed."""
        return stamps(Path(folder))

    def read(self, path: str, start: int) -> bytes:
        """A part of a file; empty beyond its end."""
        with Path(path).open("rb") as file:
            file.seek(start)
            return file.read(CHUNK)

    def write(self, path: str, start: int, data: bytes, last: bool) -> None:
        """A part of a file, in order; the last puts the file in its place."""
        target = Path(path)
        partial = target.with_name(f".{target.name}.depot.tmp")
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb" if start == 0 else "ab") as file:
            file.write(data)
        if last:
            partial.replace(target)

    def remove(self, path: str) -> None:
        """A file that the run has removed."""
        Path(path).unlink(missing_ok=True)


class Shared:
    """The folders of a node that sees those of the driver."""

    def __init__(self, job: Job) -> None:
        self.runs_dir = job.runs_dir
        self.folder: Path | None = Path(job.folder)
        self.log = Path(job.log)

    def fetch(self) -> None:
        """Nothing is to be brought here."""

    def give_back(self) -> None:
        """Nothing is to be brought back."""

    def clear(self) -> None:
        """Nothing is left over."""


class Apart:
    """The folders of a node of its own: files are brought here before a run and back after it.

    Args:
        job: says where the driver's folders are.
        depot: gives and takes their files.
    """

    def __init__(self, job: Job, depot: Any) -> None:
        runs = Path(tempfile.mkdtemp(prefix="clbench-"))
        self.runs_dir = str(runs)
        self.folder: Path | None = None
        self.log = runs / ".launch" / f"{job.key}.log"
        self._run, self._there = runs / job.key, f"{job.home}/{job.key}"
        self._far_log = job.log
        self._depot = depot
        self._sent: dict[str, str] = {}

    def fetch(self) -> None:
        """Bring the run here as the driver has it."""
        import ray

        for name in ray.get(self._depot.files.remote(self._there)):
            target = self._run / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while data := ray.get(
                    self._depot.read.remote(f"{self._there}/{name}", file.tell())
                ):
                    file.write(data)
        self._sent = stamps(self._run)

    def give_back(self) -> None:
        """Bring what changed to the driver, the result last: it speaks of all the others."""
        import ray

        now = stamps(self._run)
        for name in sorted(now, key=lambda name: (name == "result.json", name)):
            if self._sent.get(name) != now[name]:
                self._send(self._run / name, f"{self._there}/{name}")
        for name in self._sent.keys() - now.keys():
            ray.get(self._depot.remove.remote(f"{self._there}/{name}"))
        self._sent = now
        if self.log.exists():
            self._send(self.log, self._far_log)

    def clear(self) -> None:
        """Remove what was brought here."""
        shutil.rmtree(self.runs_dir, ignore_errors=True)

    def _send(self, path: Path, target: str) -> None:
        import ray

        with suppress(FileNotFoundError), path.open("rb") as file:
            start, data = 0, file.read(CHUNK)
            while True:
                following = file.read(CHUNK)
                ray.get(self._depot.write.remote(target, start, data, not following))
                if not following:
                    break
                start, data = start + len(data), following


def attempt(job: Job, depot: Any) -> int:
    """Make a run; returns the exit code of its process."""
    import ray

    place: Shared | Apart = Shared(job) if _sees(job) else Apart(job, depot)
    children = _nursery(job, place.folder)
    command = [*job.command[:-1], place.runs_dir]
    exchanged, asked = time.monotonic(), False
    try:
        place.fetch()
        children.start(job.key, command, {**job.environment, **_visible()}, place.log)
        while True:
            if ended := wait_for([children], BEAT):
                place.give_back()
                return ended[0][1]
            if not asked and ray.get(depot.shall_stop.remote()):
                children.signal(signal.SIGTERM)
                asked = True
            if time.monotonic() - exchanged > EXCHANGE:
                place.give_back()
                exchanged = time.monotonic()
    finally:
        if children.running:  # something went wrong here
            _NURSERIES.clear()
            children.hang_up()
            children.wait()
        place.clear()


def _nursery(job: Job, folder: Path | None) -> Children:
    """That of this worker, which outlives the attempt: what runs import is imported once."""
    key = (job.threads, job.warm, folder)
    if key not in _NURSERIES or not _NURSERIES[key].alive:
        _NURSERIES[key] = Children(job.environment, warm=job.warm, folder=folder)
    return _NURSERIES[key]


def stamps(folder: Path) -> dict[str, str]:
    """Files below a folder with their size and time, without locks and what is half written."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            with suppress(FileNotFoundError):
                status = path.stat()
                found[path.relative_to(folder).as_posix()] = (
                    f"{status.st_size} {status.st_mtime_ns}"
                )
    return found


def _sees(job: Job) -> bool:
    """Whether this node sees the folder of the runs, and not another of the same name."""
    token = Path(job.token)
    with suppress(OSError):
        return token.read_text(encoding="utf-8") == token.name
    return False


def _visible() -> dict[str, str]:
    """The devices that Ray has set aside for this task."""
    name = "CUDA_VISIBLE_DEVICES"
    return {name: os.environ[name]} if name in os.environ else {}
