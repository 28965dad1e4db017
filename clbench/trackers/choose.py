"""The trackers behind ``--logger``, by name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable

from clbench.core.errors import ClbenchError
from clbench.core.results.tracker import Tracker

Note = Callable[[str], None]


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers whose optional package is missing, before a run starts.

    Raises:
        ClbenchError: with the command that installs the package.
    """
    if "tensorboard" in names and importlib.util.find_spec("tensorboard") is None:
        raise ClbenchError(
            "--logger tensorboard needs the package tensorboard: "
            "pip install 'clbench[tensorboard]', or use --logger csv"
        )


def make_trackers(names: Iterable[str], note: Note) -> list[Tracker]:
    """Build the trackers of one run.

    Args:
        names: as in `clbench.core.settings.Logger`.
        note: shows a line to the user.
    """
    from clbench.trackers.csv_file import CsvTracker
    from clbench.trackers.tensorboard import TensorBoardTracker
    from clbench.trackers.wandb import WandbTracker

    build: dict[str, Callable[[], Tracker]] = {
        "csv": CsvTracker,
        "tensorboard": TensorBoardTracker,
        "wandb": lambda: WandbTracker(note),
    }
    return [build[name]() for name in names]
