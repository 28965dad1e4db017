"""Fixtures shared by all tests: a tiny CLIP, tasks that can be told apart, fixed seeds."""

from __future__ import annotations

import functools
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

# One thread per process, those that tests start included: more would wait for each other where
# several test processes share the cores, and sums would be taken in another order.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import torch
from lightning.fabric.utilities import registry
from PIL import Image
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.clip.model import CLIP
from clbench.core.task import Task
from clbench.testing.toys import ToyData, make_clip, make_task
from tests import made_up

torch.set_num_threads(1)

# The garbage collector walks through what thousands of test items hold, and finds nothing.
gc.set_threshold(50_000, 20, 50)

# Who starts tests in the background of a script has them ignore Ctrl-C, and all that they start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"
"""Of the form that W&B's keys have, and recognisable where it should not be."""


@pytest.fixture(scope="session", autouse=True)
def _quick_runs_of_toys() -> None:
    """Spare a second's work by which runs of a second would take two.

    Lightning asks all installed packages for callbacks whenever it makes a trainer, and files are
    forced to the disk, which matters if the power is cut; tests of that look at it for themselves.
    """
    registry.entry_points = functools.cache(registry.entry_points)
    os.fsync = lambda _: None


@pytest.fixture(autouse=True)
def _fixed_randomness() -> Iterator[None]:
    """Every test starts from the same random state and computes deterministically."""
    torch.manual_seed(0)
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def wandb_offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which W&B sends nothing and writes to folders of the tests only."""
    folder = tmp_path_factory.mktemp("wandb")
    names = ("DATA", "CACHE", "CONFIG", "ARTIFACT")
    return {
        **{f"WANDB_{name}_DIR": str(folder / name) for name in names},
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_PROJECT": "",
        "WANDB_API_KEY": WANDB_KEY,
    }


@pytest.fixture(scope="session")
def quick_runs(tmp_path_factory: pytest.TempPathFactory, wandb_offline: dict[str, str]) -> Path:
    """A folder with smoke runs of two methods, tracked everywhere, and their report in ``out``.

    All test processes share it, so tests leave it as it is. Trackers are not given drawings of the
    matrices, which would take longer than all the rest.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "quick-runs"
    shared_options = ["--quick", "-q", "--runs-dir", str(folder)]
    tracked = [*shared_options, "--logger", "wandb,tensorboard", "--logger", "csv"]
    commands = [["run", "--method", method, *tracked] for method in ("zeroshot", "nusa")]
    compared = ["compare", "--methods", "zeroshot,nusa", "--seeds", "0", *shared_options]
    commands.append([*compared, "--out", str(folder / "out")])
    dot = Image.new("RGB", (1, 1))
    with FileLock(shared / "quick-runs.lock"), pytest.MonkeyPatch.context() as patch:
        for tracker in ("tensorboard", "wandb"):
            patch.setattr(f"clbench.trackers.{tracker}.heatmap_image", lambda result: dot)
        if not (shared / "quick-runs.made").exists():
            for command in commands:
                outcome = CliRunner(env=wandb_offline).invoke(app, command)
                assert outcome.exit_code == 0, outcome.output
            (shared / "quick-runs.made").touch()
    return folder


@pytest.fixture
def tiny_clip() -> CLIP:
    """A random CLIP that fits in a moment of CPU time."""
    return make_clip()


@pytest.fixture
def tiny_task_data() -> Callable[..., tuple[Task, ToyData]]:
    """`make_task`: index (and number of classes, size) to a task with its training set."""
    return make_task


@pytest.fixture
def make_result() -> made_up.MakeResult:
    """`made_up.make_result`: a result of a run that was never made."""
    return made_up.make_result
