"""A saved W&B report that compares runs: metrics, accuracy over tasks, matrices, costs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.core.results.matrix import SUMMARY_KEYS
from clbench.core.results.result import FILE_NAME, RunResult
from clbench.report.tables.groups import comparable_groups
from clbench.trackers.wandb import STATE_FILE, State, quiet_wandb

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import BarPlot, Layout, Report

TITLE = "Continual learning on CLIP: methods compared"
METRICS = {
    "transfer": "Transfer",
    "average": "Avg",
    "last": "Last",
    "learned": "Learned: on each task right after it",
    "forgetting": "Forgetting (lower is better)",
    "backward_transfer": "Backward transfer",
    "forward_transfer": "Forward transfer",
    "transfer_row_mean": "Transfer, mean of rows (not the tables' Transfer)",
    "zero_shot": "Zero-shot, before training",
}
COSTS = {
    "cost/training_seconds": "Training time, s",
    "cost/peak_memory_bytes": "Peak memory, bytes",
    "footprint/trainable": "Trainable parameters",
    "footprint/added": "Added parameters",
    "footprint/stored": "Stored for later tasks, bytes",
    "footprint/external": "External data, bytes",
}
_WIDE, _HIGH, _COLUMNS = 8, 6, 3


@dataclass(frozen=True)
class TrackedRun:
    """A run that has been logged to W&B: its id there, and its result."""

    id: str
    result: RunResult


@dataclass(frozen=True)
class Part:
    """Comparable runs under one heading; an empty list stands for all runs of the project."""

    title: str
    note: str
    runs: tuple[TrackedRun, ...]

    @property
    def run_filter(self) -> str:
        """The filter, in W&B's syntax, that selects these runs of the project."""
        return f"Metric('ID') in {[run.id for run in self.runs]}" if self.runs else ""

    @property
    def grouping(self) -> dict[str, Any]:
        """Seeds are averaged; methods, and settings of one method if there are several, are not."""
        settings = {(run.result.method.name, run.result.config_hash) for run in self.runs}
        several = len({name for name, _ in settings}) < len(settings) or not settings
        key = _reports().Config("variant" if several else "method")
        return {"groupby": key, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}


def find_tracked_runs(paths: Iterable[Path]) -> list[TrackedRun]:
    """The runs under the paths that were logged to W&B.

    Raises:
        ClbenchError: a path does not exist, or holds no run that was logged to W&B.
    """
    found: dict[Path, TrackedRun] = {}
    for path in paths:
        if not path.exists():
            raise ClbenchError(f"{path} does not exist")
        folders = [file.parent for file in sorted(path.rglob(STATE_FILE))]
        tracked = [folder for folder in folders if (folder / FILE_NAME).exists()]
        if not tracked:
            raise ClbenchError(
                f"{path} holds no run that was logged to W&B: give the run directories of "
                "clbench run --logger wandb"
            )
        for folder in tracked:
            run = TrackedRun(State.load(folder).id, RunResult.load(folder))
            found[folder.resolve()] = run
    return list(found.values())


def publish_dashboard(runs: Sequence[TrackedRun], project: str, entity: str, out: Path) -> str:
    """Save the comparison in W&B; offline or without a key, write what would be sent.

    Args:
        runs: what to compare; all runs of the project if empty.
        project: W&B project of the runs, where the report is saved too.
        entity: W&B user or team that owns the project.
        out: file of the specification.

    Returns:
        What was done, for the user.

    Raises:
        ClbenchError: ``wandb-workspaces`` is missing, or W&B refuses the report; the
            specification is still written.
    """
    if (reason := _offline_reason()) is not None:
        _write_specification(build_dashboard(runs, project, entity), out)
        return f"W&B is offline ({reason}): what would be sent is in {out}"
    try:
        with quiet_wandb():
            report = build_dashboard(runs, project, entity, linked=True).save()
            return f"dashboard: {report.url}"
    except Exception as error:
        _write_specification(build_dashboard(runs, project, entity), out)
        why = " ".join(str(error).split())[:200]
        raise ClbenchError(
            f"W&B did not save the dashboard ({why}): check --project and --entity; "
            f"the report was written to {out} instead"
        ) from error


def build_dashboard(
    runs: Sequence[TrackedRun], project: str, entity: str, *, linked: bool = False
) -> Report:
    """The report: bars of every metric, accuracy curves, matrices and costs.

    Args:
        runs: what to compare; all runs of the project if empty. Runs that cannot share a
            table get separate sections.
        project: W&B project.
        entity: W&B user or team.
        linked: name the project in each set of runs, which asks the server for it; otherwise it
            is that of the report.

    Raises:
        ClbenchError: ``wandb-workspaces`` is missing, or two runs contradict each other.
    """
    wr = _reports()
    place = {"entity": entity, "project": project} if linked else {}
    blocks: list[Any] = [wr.TableOfContents()]
    for part in _parts(runs):
        blocks += [wr.H1(part.title), *([wr.P(part.note)] if part.note else [])]
        for title, panels in _sections(part):
            run_set = wr.Runset(name=part.title, filters=part.run_filter, **place)
            blocks += [wr.H2(title), wr.PanelGrid(runsets=[run_set], panels=panels)]
    report: Report = wr.Report(
        project=project, entity=entity, title=TITLE, blocks=blocks, width="fluid",
        description="Made by clbench dashboard. Bars are means over seeds, with their spread.",
    )  # fmt: skip
    return report


def specification(report: Report) -> dict[str, Any]:
    """A report as it is sent to the server."""
    # The only way to see what save() sends.
    model = report._to_model()  # type: ignore[no-untyped-call]
    return {
        "entityName": report.entity,
        "projectName": report.project,
        "displayName": model.display_name,
        "description": model.description,
        "type": "runs",
        "spec": json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True)),
    }


def _write_specification(report: Report, out: Path) -> None:
    with quiet_wandb():
        text = json.dumps(specification(report), indent=2)
    write_atomic(out, f"{text}\n")


def _parts(runs: Sequence[TrackedRun]) -> list[Part]:
    """The runs, divided into the groups of the tables."""
    if not runs:
        return [Part("All runs", "Runs of every benchmark that this project holds.", ())]
    known = {id(run.result): run for run in runs}
    return [
        Part(group.title, group.reason, tuple(known[id(result)] for result in group.results))
        for group in comparable_groups(run.result for run in runs)
    ]


def _sections(part: Part) -> list[tuple[str, list[Any]]]:
    """Titles and panels of one section."""
    wr = _reports()
    results = [run.result for run in part.runs]
    keys = [
        key
        for key in SUMMARY_KEYS
        if not results or any(result.summary[key] is not None for result in results)
    ]
    tasks = results[0].benchmark.tasks if results else ()
    curves = [
        wr.LinePlot(
            title=task,
            x="task",
            y=[f"accuracy/{task}"],
            title_x="tasks learned",
            layout=_layout(i),
            **part.grouping,
        )
        for i, task in enumerate(tasks)
    ] or [wr.LinePlot(title="Accuracy", x="task", metric_regex="accuracy/.*", layout=_layout(0))]
    matrices = wr.MediaBrowser(
        title="Accuracy after every task, on every task",
        media_keys=["matrix/image"],
        num_columns=_COLUMNS,
        layout=wr.Layout(w=24, h=18),
    )
    return [
        ("Metrics per method", [_bars(part, key, METRICS[key], i) for i, key in enumerate(keys)]),
        ("Accuracy over the tasks", curves),
        ("Accuracy matrices", [matrices]),
        ("Cost", [_bars(part, key, COSTS[key], i) for i, key in enumerate(COSTS)]),
    ]


def _bars(part: Part, key: str, title: str, index: int) -> BarPlot:
    wr = _reports()
    bars: BarPlot = wr.BarPlot(title=title, metrics=[key], layout=_layout(index), **part.grouping)
    return bars


def _layout(index: int) -> Layout:
    row, column = divmod(index, _COLUMNS)
    layout: Layout = _reports().Layout(x=_WIDE * column, y=_HIGH * row, w=_WIDE, h=_HIGH)
    return layout


def _offline_reason() -> str | None:
    """Why nothing can be sent; None if a key is available."""
    mode = os.environ.get("WANDB_MODE", "online")
    if mode not in ("online", "run", "shared"):
        return f"WANDB_MODE={mode}"
    try:
        with quiet_wandb():
            import wandb

            wandb.Api()
    except Exception as error:
        return " ".join(str(error).split())[:120]
    return None


def _reports() -> Any:
    try:
        with quiet_wandb():
            from wandb_workspaces.reports import v2
    except ImportError:
        raise ClbenchError(
            "clbench dashboard needs the package wandb-workspaces: pip install 'clbench[dashboard]'"
        ) from None
    return v2
