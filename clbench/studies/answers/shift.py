"""When protecting the directions that hold the energy of the weights protects what CLIP knows."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from matplotlib.figure import Figure

from clbench.core.errors import ClbenchError
from clbench.core.files import cached_file
from clbench.datamodules.mini.recipe import Recipe
from clbench.studies.analysis import Row, Table
from clbench.studies.cells import difference, gain, gain_difference, level
from clbench.studies.figures import draw_dots
from clbench.studies.runs import Runs, metric_weights

METRICS: Final = {"transfer": "Transfer", "learned": "Learned", "last": "Last"}
SHARES: Final = (0.1, 0.5)
"""Lengths of pretraining besides the whole, as shares of its steps."""
SHIFTS: Final = ("none", "inverted", "corrupted", "random-labels")
BASELINE: Final = "lora"


def prepare() -> None:
    """Pretrain the backbones that are not in the user's cache folder.

    Raises:
        ClbenchError: the pretraining failed.
    """
    for share in SHARES:
        file = cached_file(Recipe().shortened(share).weights)
        if file is None or file.is_file():
            continue
        command = [
            sys.executable,
            "-m",
            "clbench.datamodules.mini.pretrain",
            "--share",
            f"{share:g}",
        ]
        # A run has one thread, this has both cores.
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        if subprocess.run(command, env=environment, check=False).returncode:
            raise ClbenchError(f"pretraining failed, see above: {' '.join(command[1:])}")


def table(runs: Runs) -> Table:
    """What training changes, by pretraining, images and method."""
    rows: list[Row] = []
    for share, shift, method, own in _cells(runs):
        gains = [gain(own, metric_weights(own[0].result, metric)) for metric in METRICS]
        rows.append((f"{100 * share:g} %", shift, method, own.mean("zero_shot"), *gains))
    header = ("Pretraining", "Shift", "Method", "Zero-shot")
    notes = (
        "Zero-shot: accuracy of the same backbone on the same images, in percent. The other "
        "columns are percent points above it.",
    )
    return Table((*header, *METRICS.values()), rows, notes)


def draw(runs: Runs) -> Figure:
    """A row per pretraining and shift, a panel per metric and method."""
    groups = list(dict.fromkeys((share, shift) for share, shift, _, _ in _cells(runs)))
    found = {(share, shift, method): own for share, shift, method, own in _cells(runs)}
    names = [f"{100 * share:g} %, {shift}" for share, shift in groups]
    panels = []
    methods = runs.values("method")
    for metric in ("transfer", "learned"):
        for method in methods:
            cells = [found.get((*group, method)) for group in groups]
            values = [
                None if own is None else gain(own, metric_weights(own[0].result, metric))
                for own in cells
            ]
            panels.append((f"{METRICS[metric]},\n{method}", values))
    figure = draw_dots(names, panels, levels=[0.0] * len(panels))
    for i in range(0, len(panels), len(methods)):
        same = figure.axes[i : i + len(methods)]
        ends = [end for ax in same for end in ax.get_xlim()]
        for ax in same:
            ax.set_xlim(min(ends), max(ends))
    return figure


def numbers(runs: Runs) -> Mapping[str, str]:
    """Every metric by shift, share of the pretraining in percent, and method.

    ``transfer inverted 10 nusa`` is an accuracy, ``Δtransfer inverted 10 nusa`` what it is above
    ``zero-shot inverted 10``, and ``transfer inverted 10 nusa minus lora`` a difference. How Δ
    differs from that of unshifted images, and of the whole pretraining, say ``Δtransfer inverted 10
    nusa minus none`` and ``Δtransfer inverted 10 nusa minus 100``.
    """
    found = {}
    cells = {(share, shift, method): own for share, shift, method, own in _cells(runs)}
    for (share, shift, method), own in cells.items():
        where = f"{shift} {100 * share:g}"
        found[f"zero-shot {where}"] = f"{own.mean('zero_shot'):.1f}"
        others = {
            "none": cells.get((share, SHIFTS[0], method)) if shift != SHIFTS[0] else None,
            "100": cells.get((1.0, shift, method)) if share != 1.0 else None,
        }
        base = cells.get((share, shift, BASELINE)) if method != BASELINE else None
        for metric in METRICS:
            name = f"{metric} {where} {method}"
            weights = metric_weights(own[0].result, metric)
            found[name] = str(level(own, weights))
            found[f"Δ{name}"] = str(gain(own, weights))
            if base is not None:
                found[f"{name} minus {BASELINE}"] = str(difference(own, base, weights))
            for other, theirs in others.items():
                if theirs is not None:
                    found[f"Δ{name} minus {other}"] = str(gain_difference(own, theirs, weights))
    return found


def _cells(runs: Runs) -> list[tuple[float, str, str, Runs]]:
    """Share of the pretraining, shift and method of every cell of the grid, with its runs."""
    shares = {Recipe().shortened(share).weights: share for share in SHARES}

    def chosen(share: float, shift: str, method: str) -> Runs:
        own = runs.where(method=method, benchmark__shift=shift)
        return own.only(lambda run: shares.get(run.setting("backbone.weights"), 1.0) == share)

    return [
        (share, shift, method, own)
        for share in (*SHARES, 1.0)
        for shift in SHIFTS
        for method in runs.values("method")
        if (own := chosen(share, shift, method))
    ]
