"""Runs in Weights & Biases: one W&B run per task sequence, online or offline."""

from __future__ import annotations

import io
import json
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.core.files import write_atomic
from clbench.core.results.result import RunResult
from clbench.core.results.tracker import Stage, probe_values, stages
from clbench.trackers.heatmap import heatmap_image

if TYPE_CHECKING:
    import wandb

PROJECT = "clbench"
STATE_FILE = "wandb.json"
ARTIFACT_FILES = (
    "result.json",
    "config.yaml",
    "matrix.csv",
    "table.md",
    "metrics.jsonl",
    "metrics.csv",
    "probes.csv",
    "log.txt",
)
SECTIONS = {"accuracy": "task", "matrix": "task", "probe": "task", "train": "step"}
"""What the numbers of each section are drawn over."""
INIT_SECONDS = 30.0
FINISH_SECONDS = 120.0
"""Seconds that a run waits for the server at its start and end."""


@dataclass
class State:
    """The content of ``wandb.json``, by which a resumed run continues the same W&B run.

    Attributes:
        id: ID of the W&B run.
        rows: rows of the accuracy matrix that were logged.
        finished: whether everything was logged.
    """

    id: str
    rows: int = 0
    finished: bool = False

    @classmethod
    def load(cls, folder: Path) -> State:
        """The state in a run directory; a new one if there is none that can be read."""
        try:
            return cls(**json.loads((folder / STATE_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls(secrets.token_hex(4))

    def save(self, folder: Path) -> None:
        """Write ``wandb.json``."""
        write_atomic(folder / STATE_FILE, json.dumps(asdict(self)) + "\n")


class WandbTracker:
    """Logs a sequence as one W&B run: accuracy over tasks, losses over all steps.

    Where the server cannot be used (no key, no network), the run is recorded offline.

    Args:
        note: shows a line to the user.
        init_seconds: how long to wait for the server at the start.
    """

    name = "W&B"

    def __init__(self, note: Callable[[str], None], init_seconds: float = INIT_SECONDS) -> None:
        self._note = note
        self._init_seconds = init_seconds
        self._run: wandb.Run | None = None
        self._folder = Path()
        self._state = State("")
        self._learned = 0

    def begin(self, result: RunResult, folder: Path) -> None:
        """Start or continue the W&B run, and log what it does not have yet."""
        self._folder, self._state = folder, State.load(folder)
        if self._state.finished:
            return
        with quiet_wandb():
            offline_because = self._open(result)
        if offline_because is not None:
            runs = folder / "wandb" / "offline-run-*"
            self._note(f"W&B is offline{offline_because}; to upload the run: wandb sync {runs}")
        if self._run is None:
            return
        self._state.save(folder)
        self._learned = result.matrix.learned
        with quiet_wandb():
            for stage in stages(result, folder):
                if stage.learned >= self._state.rows:
                    self._log_stage(result, stage)
            self._summarise(result)

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Log loss terms and learning rate."""
        if self._run is None:
            return
        with quiet_wandb():
            self._log_losses(step, values, self._learned)

    def row(self, result: RunResult) -> None:
        """Log the newest row of the accuracy matrix, and the matrix so far."""
        if self._run is None:
            return
        with quiet_wandb():
            self._log_stage(result, Stage(result.matrix.learned, True, result.cost.steps, ()))
            self._summarise(result)

    def end(self, finished: bool) -> None:
        """Attach the result files and wait for the upload."""
        if self._run is None:
            return
        try:
            with quiet_wandb():
                if finished:
                    self._attach_files()
                self._run.finish(exit_code=0 if finished else 1)
        except TimeoutError:
            runs = self._folder / "wandb" / "run-*"
            self._note(f"W&B did not answer in time; to upload the rest: wandb sync {runs}")
            return
        self._state.finished = finished
        self._state.save(self._folder)

    def _open(self, result: RunResult) -> str | None:
        """Open the W&B run; returns why it is offline, None if it is online."""
        reason = ""
        try:
            self._run = self._init(result, None)
        except (Exception, SystemExit) as error:  # no key, no network, no such entity, ...
            _forget_failed_run()
            self._run = self._init(result, "offline")
            reason = f" ({' '.join(str(error).split())[:120]})"
        if self._run.disabled:  # WANDB_MODE=disabled
            self._run = None
            return None
        for section, axis in SECTIONS.items():
            self._run.define_metric(f"{section}/*", step_metric=axis)
        return reason if self._run.offline else None

    def _init(self, result: RunResult, mode: Any) -> wandb.Run:
        import wandb

        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=self._state.id,
            resume="allow",
            mode=mode,
            dir=self._folder,
            **describe_run(result),
            settings=wandb.Settings(
                silent=True,
                console="off",
                reinit="create_new",  # does not touch a run that the user has open
                init_timeout=self._init_seconds,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        )

    def _log_stage(self, result: RunResult, stage: Stage) -> None:
        """Log the losses of a task, and the row after it if there is one."""
        for step, losses in stage.losses:
            self._log_losses(step, losses, stage.learned - 1)
        if stage.tested:
            self._log_row(result, stage)

    def _log_row(self, result: RunResult, stage: Stage) -> None:
        """Log a row of the accuracy matrix, with the matrix so far if it is the newest."""
        import wandb

        assert self._run is not None
        tasks = result.benchmark.tasks
        accuracies = result.accuracy.values[stage.learned]
        row = {f"accuracy/{t}": a for t, a in zip(tasks, accuracies, strict=True) if a is not None}
        values: dict[str, Any] = {"task": stage.learned, **row}
        values |= {f"probe/{name}": v for name, v in probe_values(result, stage.learned)}
        if stage.learned == result.matrix.learned:
            rows = zip(["zero-shot", *tasks], result.accuracy.values, strict=True)
            table: list[Any] = [[name, *cells] for name, cells in rows]
            values["matrix/table"] = wandb.Table(columns=["after", *tasks], data=table)
            if (image := heatmap_image(result)) is not None:
                values["matrix/image"] = wandb.Image(image)
        self._run.log(values, step=_position(stage.steps, stage.learned), commit=True)
        self._learned = stage.learned
        self._state.rows = stage.learned + 1
        self._state.save(self._folder)

    def _log_losses(self, step: int, values: Mapping[str, float], learned: int) -> None:
        assert self._run is not None
        named = {f"train/{name}": value for name, value in values.items()}
        self._run.log({"step": step, **named}, step=_position(step, learned), commit=True)

    def _summarise(self, result: RunResult) -> None:
        assert self._run is not None
        self._run.summary.update(summary_fields(result))

    def _attach_files(self) -> None:
        import wandb

        assert self._run is not None
        artifact = wandb.Artifact(f"result-{self._state.id}", type="result")
        for name in ARTIFACT_FILES:
            if (self._folder / name).exists():
                artifact.add_file(str(self._folder / name))
        self._run.log_artifact(artifact)


def describe_run(result: RunResult) -> dict[str, Any]:
    """Name, group, job type, tags and configuration of a W&B run."""
    benchmark, method = result.benchmark, result.method
    tags = [f"order:{benchmark.order}", f"seed:{result.seed}", f"setting:{benchmark.setting.value}"]
    return {
        "name": f"{method.name}-seed{result.seed}",
        "group": benchmark.name,
        "job_type": method.name,
        "tags": [*tags, "quick"] if result.config.get("quick") else tags,
        "config": {
            "method": method.name,
            "variant": f"{method.name}-{result.config_hash}",
            "needs": list(method.needs),
            "params": method.params,
            "benchmark": benchmark.model_dump(mode="json"),
            "backbone": result.backbone.model_dump(),
            "seed": result.seed,
            "settings": result.config,
            "config_hash": result.config_hash,
            "data": result.data.model_dump(),
            "provenance": result.provenance,
        },
    }


def summary_fields(result: RunResult) -> dict[str, Any]:
    """The fields of a W&B summary: metrics under their names in ``result.json``, and costs."""
    costs = {f"cost/{key}": value for key, value in result.cost.model_dump().items()}
    footprint = {f"footprint/{key}": value for key, value in result.footprint.model_dump().items()}
    return {"status": result.status, **result.summary, **costs, **footprint}


def _position(step: int, learned: int) -> int:
    """W&B's step counter, which must increase: one per optimizer step and one per row.

    It depends on the progress of the run only, so that values that are logged again after an
    interruption have the same step, and W&B keeps one of them.
    """
    return step + learned


def _forget_failed_run() -> None:
    """Stop W&B's background process, which keeps the ID of a run that did not start."""
    import wandb

    if wandb.run is None:  # otherwise it serves a run of the user's too
        with suppress(Exception, SystemExit):
            wandb.teardown()


@contextmanager
def quiet_wandb() -> Iterator[None]:
    """Keep W&B from printing, warning and asking for a key: without a terminal it raises."""
    stdin, sys.stdin = sys.stdin, io.StringIO()
    try:
        with (
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdin = stdin
