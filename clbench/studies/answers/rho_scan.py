"""How much of the energy NuSA-CL should leave alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from matplotlib.figure import Figure

from clbench.studies.analysis import Row, Table
from clbench.studies.figures import Curve, Panel, draw_curves
from clbench.studies.runs import Runs

METRICS: Final = {"transfer": "Transfer", "learned": "Learned", "last": "Last"}


def table(runs: Runs) -> Table:
    """Transfer, Learned and Last by number of tasks, rank and share of the energy."""
    rows: list[Row] = [
        (str(tasks), rank, rho, *(own.estimate(metric) for metric in METRICS))
        for tasks, rank, rho, own in _cells(runs)
    ]
    header = ("Tasks", "Rank", "ρ", *METRICS.values())
    return Table(header, rows, digits={"ρ": 3})


def draw(runs: Runs) -> Figure:
    """A panel per metric and number of tasks, a curve per rank."""
    panels = []
    for tasks in runs.values("first_tasks"):
        some = runs.where(first_tasks=tasks)
        for metric, title in METRICS.items():
            curves = []
            for rank in some.values("method.rank"):
                own = some.where(method__rank=rank)
                shares = own.values("method.rho")
                y = [own.where(method__rho=rho).estimate(metric) for rho in shares]
                curves.append(Curve(f"rank {rank}", shares, y))
            panels.append(Panel(f"{title}, {tasks or 'all'} tasks", "ρ", f"{title}, %", curves))
    return draw_curves(panels)


def numbers(runs: Runs) -> Mapping[str, str]:
    """Every metric by tasks, rank and share, and what it gains over 0.95 and over zero-shot."""
    found = {}
    for tasks, rank, rho, own in _cells(runs):
        usual = runs.where(first_tasks=_given(tasks), method__rank=rank, method__rho=0.95)
        for metric in METRICS:
            name = f"{metric} {tasks} r{rank} {rho:g}"
            found[name] = str(own.estimate(metric))
            found[f"Δ{name}"] = str(own.difference(usual, metric))
            found[f"gain {name}"] = str(own.gain(metric))
    return found


def _cells(runs: Runs) -> list[tuple[str, int, float, Runs]]:
    return [
        (str(tasks or "all"), rank, rho, own)
        for tasks in runs.values("first_tasks")
        for rank in runs.where(first_tasks=tasks).values("method.rank")
        for rho in runs.values("method.rho")
        if (own := runs.where(first_tasks=tasks, method__rank=rank, method__rho=rho))
    ]


def _given(tasks: str) -> int | None:
    return None if tasks == "all" else int(tasks)
