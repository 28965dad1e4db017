"""Whether starting in the null space is enough, or updates must stay there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from matplotlib.figure import Figure

from clbench.studies.analysis import Row, Table
from clbench.studies.figures import Curve, Panel, draw_curves
from clbench.studies.matched import at_equal_learned
from clbench.studies.runs import Runs, tenths

LR: Final = "train.lr"
METRICS: Final = {"transfer": "Transfer", "learned": "Learned", "average": "Avg", "last": "Last"}
VARIANTS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "m": ("NuSA-CL, M", {"method__trainable": "m"}),
    "mv": ("NuSA-CL, M and V", {"method__trainable": "mv"}),
    "muv": ("NuSA-CL, M, U and V", {"method__trainable": "muv"}),
    "milora": ("MiLoRA", {"method": "milora"}),
    "tail": ("LoRA from the null space", {"method__start": "tail"}),
    "random": ("LoRA from random", {"method__start": "random"}),
}
"""What is compared: a short name, a name for readers, and the settings that tell."""
INSIDE: Final = {"left": "inside_left", "right": "inside_right", "both": "inside_both"}


def table(runs: Runs) -> Table:
    """All runs, with the best learning rate of each variant marked."""
    rows: list[Row] = []
    for name, settings in VARIANTS.values():
        own = runs.where(**settings)
        for rate in own.values(LR):
            one = own.where(train__lr=rate)
            mark = "best" if rate == _best(own) else ""
            inside = 100 * one.probed_after_tasks("spectrum", "inside_both")
            estimates = [one.estimate(metric) for metric in METRICS]
            rows.append((name, rate, mark, *estimates, one.mean("forgetting"), inside))
    header = ("Update", "Rate", "By Avg", *METRICS.values(), "Forgetting", "Inside, %")
    notes = (
        "Inside: share of the update's energy in the directions, of output and input, that held "
        "95 % of the weight's energy before the task; mean over weights and tasks.",
    )
    return Table(header, rows, notes, powers=("Rate",))


def draw(runs: Runs) -> Figure:
    """A panel per metric, a curve per variant over the learning rate."""
    panels = []
    for metric, title in METRICS.items():
        curves = []
        for name, settings in VARIANTS.values():
            own = runs.where(**settings)
            rates = own.values(LR)
            y = [own.where(train__lr=rate).estimate(metric) for rate in rates]
            curves.append(Curve(name, rates, y))
        panels.append(Panel(title, "learning rate", "%", curves, log=True))
    return draw_curves(panels, columns=2)


def numbers(runs: Runs) -> Mapping[str, str]:
    """Metrics of each variant at its best learning rate, and differences to M alone.

    ``last mv`` is M and V at its best rate, ``Δlast mv`` that minus M alone at its own,
    ``Δlast mv random`` minus plain LoRA, ``=last mv`` minus M alone where both have learned the
    same (``=learned mv``), ``last mv 0.001`` one run. ``lr mv`` is the best rate, and ``end mv``
    says whether it is the first, the last or a middle one of those tried.
    """
    found = {}
    best = {key: runs.where(**s).where(train__lr=_best(runs.where(**s))) for key, s in _settings()}
    for key, settings in _settings():
        own, chosen = runs.where(**settings), best[key]
        rates, rate = own.values(LR), _best(own)
        found[f"lr {key}"] = f"{rate:g}"
        found[f"end {key}"] = {rates[0]: "first", rates[-1]: "last"}.get(rate, "middle")
        found[f"forgetting {key}"] = tenths(chosen.mean("forgetting"))
        for name, value in INSIDE.items():
            share = 100 * chosen.probed_after_tasks("spectrum", value)
            found[f"{name} {key}"] = f"{share:.2g}"
        for metric in METRICS:
            found[f"{metric} {key}"] = str(chosen.estimate(metric))
            found[f"Δ{metric} {key}"] = str(chosen.difference(best["m"], metric))
            found[f"Δ{metric} {key} random"] = str(chosen.difference(best["random"], metric))
            for one in rates:
                run = own.where(train__lr=one)
                found[f"{metric} {key} {one:g}"] = str(run.estimate(metric))
        found |= _at_equal_learned(runs, key)
    return found


def _at_equal_learned(runs: Runs, key: str) -> dict[str, str]:
    """A variant minus M alone in the middle of what both learned; empty if nothing is common."""
    variant, frozen = (runs.where(**VARIANTS[name][1]) for name in (key, "m"))
    return at_equal_learned(variant.along(LR), frozen.along(LR), key)


def _settings() -> list[tuple[str, dict[str, Any]]]:
    return [(key, settings) for key, (_, settings) in VARIANTS.items()]


def _best(own: Runs) -> float:
    """The learning rate with the highest Avg."""
    rates: list[float] = own.values(LR)
    return max(rates, key=lambda rate: own.where(train__lr=rate).mean("average"))
