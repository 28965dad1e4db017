"""The command line in a process that notes what it does, and may shoot itself on the way.

``CHAOS_NOTE`` names a file that always holds the current activity. ``CHAOS_POINT`` is a place and
how often it is passed before the process kills itself there, e.g. ``evaluation:5``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOTE = Path(os.environ["CHAOS_NOTE"])
PLACE, _, COUNT = os.environ.get("CHAOS_POINT", ":").partition(":")
passed = 0


def note(activity: str) -> None:
    """Leave what goes on for the process that kills this one."""
    NOTE.write_text(activity)


def at(place: str) -> None:
    """Die here, if this is the place and its turn."""
    global passed
    if place != PLACE:
        return
    passed += 1
    if passed == int(COUNT):
        note(place)
        os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, place: str) -> None:
    """Pass a place whenever a function is called."""
    function: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        at(place)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def half_written(owner: Any, name: str, place: str, position: int) -> None:
    """Pass a place when a file is written, with half of it on the disk."""
    function: Callable[..., Any] = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if place == PLACE and passed + 1 == int(COUNT):
            target = args[position]
            size = target.seek(0, 1) if hasattr(target, "seek") else target.stat().st_size
            os.truncate(target if isinstance(target, Path) else target.name, size // 2)
        at(place)
        return result

    setattr(owner, name, wrapped)


def main() -> None:
    """Run the command line under observation."""
    note("starting")
    from clbench.core import files
    from clbench.datamodules.mini import cache, sequence
    from clbench.engine.rundir import checkpoints, costs, zeroshot
    from clbench.engine.training import callbacks

    measure = costs.Stopwatch.measure

    @contextmanager
    def noted(self: Any, activity: str) -> Iterator[None]:
        note(activity)
        with measure(self, activity):
            yield
        note("between")

    save = checkpoints.CheckpointStore.save

    def saving(self: Any, checkpoint: Any) -> None:
        activity = NOTE.read_text()
        note("checkpoint")
        save(self, checkpoint)
        note(activity)

    render = sequence.render_split

    def rendering(*args: Any) -> Any:
        note("rendering")
        return render(*args)

    costs.Stopwatch.measure = noted  # type: ignore[method-assign]
    checkpoints.CheckpointStore.save = saving  # type: ignore[method-assign]
    sequence.render_split = rendering
    half_written(checkpoints, "save_file", "half a checkpoint", 1)
    before(checkpoints, "write_atomic", "checkpoint without its JSON")
    before(checkpoints.CheckpointStore, "_prune", "checkpoint before old ones go")
    half_written(cache.np, "savez", "half an image cache", 0)
    before(zeroshot, "write_atomic", "zero-shot cache")
    before(callbacks.AccuracyRowCallback, "on_test_batch_end", "evaluation batch")
    before(callbacks.LossCallback, "on_train_batch_end", "training step")
    replace = files.Path.replace

    def replacing(self: Path, target: Path) -> Path:
        if Path(target).name == "result.json":
            at("result before its rename")
        return replace(self, target)

    files.Path.replace = replacing  # type: ignore[method-assign, assignment]
    from clbench.cli.app import app

    app()


if __name__ == "__main__":
    main()
