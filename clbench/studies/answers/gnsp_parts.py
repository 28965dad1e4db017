"""What the parts of GNSP do, and how far AdamW leaves the null space."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.figure import Figure

from clbench.studies.analysis import Row, Table
from clbench.studies.figures import draw_dots
from clbench.studies.matched import at_equal_learned
from clbench.studies.runs import Run, Runs, tenths

LR: Final = "train.lr"
METRICS: Final = {"transfer": "Transfer", "learned": "Learned", "average": "Avg", "last": "Last"}
USUAL: Final = 5.6e-4
"""The learning rate at which the parts are told apart."""
MEASURED: Final = {LR: USUAL, "method.rho": 0.23}
"""Settings of what is measured besides runs."""
PROJECTIONS: Final = ("gradient", "update", "none")
LOSSES: Final = {"method.distillation": "distillation", "method.alignment": "alignment"}
PLAIN: Final = "fine-tuning"
FULL: Final = "gradient+distillation+alignment"
BARE: Final = "no part"
R1: Final = ("mini_i2t_r1", "mini_t2i_r1")


def table(runs: Runs) -> Table:
    """All runs with what they keep, what drifts, and what they cost."""
    rows: list[Row] = []
    for run in _sorted(runs):
        one = Runs([run])
        rate = "own" if _parts(run) == PLAIN else f"{run.setting(LR):g}"
        estimates = [one.estimate(metric) for metric in ("transfer", "learned", "last")]
        rows.append((_parts(run), rate, *estimates, *_kept(one).values(), *_costs(one, runs)))
    header = (
        *("Parts", "Rate", "Transfer", "Learned", "Last"),
        *("Drift, %", "Gap", "R@1", "Time, x", "Stored, MB"),
    )
    notes = [
        "Drift: change of the outputs of the image encoder's MLPs for inputs of earlier tasks. "
        "Gap, R@1: modality gap, and retrieval of captions and images, after the last task. Time: "
        "that of training and of the work around it, over fine-tuning's. Stored: what is kept "
        "between tasks besides the model."
    ]
    if runs.measured:
        steps = list(runs.measured["none"])
        shares = "; ".join(
            f"{name} {', '.join(_percent(runs.measured[name][n]['outside']) for n in steps)}"
            for name in runs.measured
        )
        notes.append(
            "Outside the null space: share of the second task's update that lies in the directions "
            f"of the first task's features, after {', '.join(steps)} steps, in percent: {shares}."
        )
    return Table(header, rows, tuple(notes), digits={"Gap": 3})


def draw(runs: Runs) -> Figure:
    """A row per variant at the usual rate; metrics, drift and gap."""
    chosen = [run for run in _sorted(runs) if _parts(run) == PLAIN or run.setting(LR) == USUAL]
    ones = [Runs([run]) for run in chosen]
    panels: list[tuple[str, Sequence[Any]]] = [
        (title, [one.estimate(metric) for one in ones])
        for metric, title in METRICS.items()
        if metric in ("transfer", "last")
    ]
    kept = [_kept(one) for one in ones]
    panels.append(("Drift, %", [_known(one["drift"]) for one in kept]))
    panels.append(("Gap", [_known(one["gap"]) for one in kept]))
    before = statistics.fmean(one.probed("gap", "gap", row=0) for one in ones)
    return draw_dots([_parts(run) for run in chosen], panels, (None, None, None, before))


def numbers(runs: Runs) -> Mapping[str, str]:
    """Every variant, differences to all parts, to none and to fine-tuning, and what was measured.

    ``last gradient+alignment`` is a variant at the usual rate, ``Δlast …`` that minus all parts
    (``gradient+distillation+alignment``), ``Δlast … bare`` minus no part, ``Δlast … plain`` minus
    fine-tuning; ``last … 0.0011`` a run at another rate. ``=last update`` is the update's
    projection minus the gradient's where both have learned ``=learned update``; likewise ``none``.
    """
    usual = {
        _parts(run): Runs([run]) for run in runs if _parts(run) == PLAIN or run.setting(LR) == USUAL
    }
    others = {"": usual[FULL], " bare": usual[BARE], " plain": usual[PLAIN]}
    found: dict[str, str] = {}
    for name, one in usual.items():
        found |= {f"{key} {name}": _short(value) for key, value in _kept(one).items()}
        found |= _cost_numbers(name, one, runs)
        found[f"forgetting {name}"] = tenths(one.mean("forgetting"))
        found |= {f"{metric} {name}": str(one.estimate(metric)) for metric in METRICS}
        for metric, (end, other) in itertools.product(METRICS, others.items()):
            found[f"Δ{metric} {name}{end}"] = str(one.difference(other, metric))
    for run in runs:
        if _parts(run) != PLAIN:
            for metric in METRICS:
                name = f"{metric} {_parts(run)} {run.setting(LR):g}"
                found[name] = str(Runs([run]).estimate(metric))
    before = usual[PLAIN]
    found |= {f"{key} before": _short(value) for key, value in _looked(before, row=0).items()}
    for projection in ("update", "none"):
        found |= _at_equal_learned(runs, projection)
    return found | _measured_numbers(runs.measured)


def basis(*, quick: bool) -> dict[str, Any]:
    """What `measure` depends on."""
    from clbench.studies import null_space

    return null_space.basis(MEASURED, quick=quick)


def measure(*, quick: bool) -> dict[str, Any]:
    """How far updates leave the null space; see `clbench.studies.null_space`."""
    # What trains takes seconds to import; pages are written without it.
    from clbench.studies import null_space

    return null_space.measure_leaving(MEASURED, quick=quick)


def _parts(run: Run) -> str:
    """The parts that a run has, in words."""
    if run.setting("method") == "finetune":
        return PLAIN
    projection = run.setting("method.projection")
    losses = [name for key, name in LOSSES.items() if run.setting(key)]
    return "+".join(([] if projection == "none" else [projection]) + losses) or BARE


def _sorted(runs: Runs) -> list[Run]:
    """Fine-tuning, then GNSP with more and more parts, by learning rate."""

    def place(run: Run) -> tuple[Any, ...]:
        parts = _parts(run)
        number = -1 if parts == PLAIN else 0 if parts == BARE else 1 + parts.count("+")
        return number, parts, run.setting(LR) if number >= 0 else 0.0

    return sorted(runs, key=place)


def _kept(one: Runs) -> dict[str, float]:
    """Drift on earlier tasks in percent, gap, and R@1 in percent as the mean of both ways."""
    names = one[0].result.probes["drift"].values
    layers = [n for n in names if n.startswith("earlier/vision.") and ".mlp." in n]
    drifts = [one.probed_after_tasks("drift", name) for name in layers]
    drift = 100 * statistics.fmean(drifts) if drifts else math.nan
    return {"drift": drift, **_looked(one)}


def _looked(one: Runs, row: int = -1) -> dict[str, float]:
    recall = statistics.fmean(one.probed("retrieval", name, row) for name in R1)
    return {"gap": one.probed("gap", "gap", row), "retrieval": 100 * recall}


def _costs(one: Runs, runs: Runs) -> tuple[float, float]:
    """Time over that of fine-tuning, and megabytes kept between tasks."""
    plain = runs.where(method="finetune")
    seconds = [
        statistics.fmean(
            run.result.cost.training_seconds + run.result.cost.overhead_seconds for run in some
        )
        for some in (one, plain)
    ]
    return seconds[0] / seconds[1], one[0].result.footprint.stored / 1e6


def _cost_numbers(name: str, one: Runs, runs: Runs) -> dict[str, str]:
    time, stored = _costs(one, runs)
    peaks = [some[0].result.cost.peak_memory_bytes for some in (one, runs.where(method="finetune"))]
    found = {f"time {name}": f"{time:.2f}", f"stored {name}": tenths(stored)}
    if all(peaks):
        found[f"peak {name}"] = f"{peaks[0] / peaks[1]:.2f}"
    return found


def _at_equal_learned(runs: Runs, projection: str) -> dict[str, str]:
    """A projection minus that of gradients, with all losses, where both have learned the same."""
    other, gradient = (
        Runs([run for run in runs.where(method__projection=name) if all(map(run.setting, LOSSES))])
        for name in (projection, "gradient")
    )
    return at_equal_learned(other.along(LR), gradient.along(LR), projection)


def _measured_numbers(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    """``outside gradient 100`` and ``change gradient 100``, in percent."""
    return {
        f"{key} {name} {steps}": _percent(value)
        for name, by_steps in measured.items()
        for steps, values in by_steps.items()
        for key, value in values.items()
    }


def _percent(share: float) -> str:
    return f"{100 * share:.2g}"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
