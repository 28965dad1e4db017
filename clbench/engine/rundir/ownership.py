"""Which process may write to a run directory, and what becomes of one that died.

The lock is the operating system's, so it ends with its process. A shared file system may not pass
locks on between hosts; therefore the owner also leaves a note beside the lock and touches it now
and then. A note that another host touched lately counts as a lock, an old one does not.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from clbench.core.errors import ClbenchError

LOCK = ".lock"
NOTE = ".owner.json"
BEAT = 10.0
"""Seconds between two signs of life."""
SILENCE = 60.0
"""Seconds without a sign of life after which another host's process counts as dead."""


@dataclass(frozen=True)
class Owner:
    """A process that holds a run directory.

    Attributes:
        pid: its number on its host.
        host: name of the host; containers have names of their own.
        since: when it took the directory.
        boot: identifies the running kernel, which containers of one machine share.
    """

    pid: int
    host: str
    since: str
    boot: str

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        since = datetime.now(UTC).isoformat("T", "seconds")
        return cls(os.getpid(), socket.gethostname(), since, _boot())

    @classmethod
    def read(cls, path: Path) -> Owner | None:
        """Who left a note; None if nobody did, or half of one."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            texts = [str(content[key]) for key in ("host", "since", "boot")]
            return cls(int(content["pid"]), *texts)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class Ownership:
    """Holds a folder for this process until released.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._note = folder / NOTE
        self._lock = FileLock(folder / LOCK)
        self._done = threading.Event()
        self._beat: threading.Thread | None = None

    def acquire(self) -> Owner | None:
        """Take the folder, at once or not at all.

        Returns:
            The dead process that it was taken over from, if there was one.

        Raises:
            ClbenchError: a living process holds it.
            OSError: the folder cannot be written.
        """
        owner = Owner.read(self._note)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._refuse(owner)
        try:
            self._refuse_living(owner)
            self._write_note()
        except BaseException:
            self._lock.release()
            raise
        self._beat = threading.Thread(target=self._keep_beating, name="clbench-owner", daemon=True)
        self._beat.start()
        return owner

    def require_free(self) -> None:
        """Check that no living process holds the folder, and leave it as it is.

        Raises:
            ClbenchError: one does.
        """
        if not (self.folder / LOCK).exists():
            return
        owner = Owner.read(self._note)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._refuse(owner)
        except OSError:  # such as on a disk that is read-only: whoever can write may hold it
            if _is_locked(self.folder / LOCK):
                self._refuse(owner)
        else:
            self._lock.release()
        with suppress(OSError):
            self._refuse_living(owner)

    def _refuse(self, owner: Owner | None) -> NoReturn:
        raise ClbenchError(
            f"{self.folder} is in use by {owner or 'an unknown process'}: wait for it or stop it"
        ) from None

    def release(self) -> None:
        """Give the folder back."""
        self._done.set()
        if self._beat is not None:
            self._beat.join()
        with suppress(OSError):  # the directory may have vanished
            self._note.unlink(missing_ok=True)
        self._lock.release()

    def _refuse_living(self, owner: Owner | None) -> None:
        """The lock is ours; is it also known to the host that the note names?"""
        if owner is None or owner.host == socket.gethostname() or owner.boot == _boot() != "":
            return  # under this kernel a living owner would have held the lock
        silence = self._silence()
        if silence is not None and silence <= SILENCE:
            raise ClbenchError(
                f"{self.folder} is in use by {owner}, seen {max(0.0, silence):.0f} s ago: wait for "
                f"it or stop it; if that host is gone, delete {self._note}"
            )

    def _silence(self) -> float | None:
        """Seconds since the owner's last sign of life, by the clock of the file system.

        This host's clock plays no part, so it may be wrong or set back.
        """
        probe = self.folder / f".{secrets.token_hex(4)}.now"
        try:
            probe.touch()
            return probe.stat().st_mtime - self._note.stat().st_mtime
        except FileNotFoundError:
            return None
        finally:
            probe.unlink(missing_ok=True)

    def _write_note(self) -> None:
        temporary = self._note.with_suffix(f".{secrets.token_hex(4)}.tmp")
        temporary.write_text(json.dumps(asdict(Owner.current())) + "\n", encoding="utf-8")
        temporary.replace(self._note)

    def _keep_beating(self) -> None:
        while not self._done.wait(BEAT):
            with suppress(OSError):
                os.utime(self._note)


def _is_locked(path: Path) -> bool:
    """Whether a process holds a lock file that this one may only read, or not even that."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _boot() -> str:
    """Identifies the running kernel; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
