"""Whether NuSA-CL leaves the principal part of the weights alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from matplotlib.figure import Figure

from clbench.studies.analysis import Row, Table
from clbench.studies.figures import Curve, Panel, draw_curves
from clbench.studies.runs import Run, Runs

PROBE: Final = "spectrum"
SIDES: Final = {"left": "inside_left", "right": "inside_right", "both": "inside_both"}
VARIANTS: Final = {
    "m": "NuSA-CL, M",
    "mv": "NuSA-CL, M and V",
    "muv": "NuSA-CL, M, U and V",
    "lora": "LoRA",
    "finetune": "fine-tuning",
}
DECAY, DROPOUT = "train.weight_decay", "method.dropout"


def table(runs: Runs) -> Table:
    """Shares and angle of every run, with what it learned."""
    rows: list[Row] = []
    for variant, name in VARIANTS.items():
        for run in _of(runs, variant):
            one = Runs([run])
            shares = [one.probed_after_tasks(PROBE, value) for value in SIDES.values()]
            angle = one.probed_after_tasks(PROBE, "angle")
            given = [run.setting(key) for key in (DROPOUT, DECAY, "train.steps")]
            rows.append((name, *given, *shares, angle, one.estimate("learned")))
    titles = ("Left", "Right", "Both")
    header = ("Trained", "Dropout", "Decay", "Steps", *titles, "Angle, °", "Learned")
    return Table(
        header,
        rows,
        notes=(
            "Left, Right, Both: share of the update's energy in the principal directions of the "
            "outputs, of the inputs, and of both. Angle: between the principal directions before "
            "and after a task; it also moves where merged directions become principal themselves.",
        ),
        digits={"Dropout": 2, "Angle, °": 3},
        powers=titles,
    )


def draw(runs: Runs) -> Figure:
    """A panel per side, a curve per variant over the steps of a task."""
    panels = []
    for title, value in zip(("outputs", "inputs", "both"), SIDES.values(), strict=True):
        curves = []
        for variant, name in VARIANTS.items():
            own = _harshest(_of(runs, variant))
            steps = own.values("train.steps")
            y = [own.where(train__steps=n).probed_after_tasks(PROBE, value) for n in steps]
            curves.append(Curve(name, steps, y))
        panels.append(Panel(title.capitalize(), "steps", "share", curves, log=True, log_y=True))
    return draw_curves(panels)


def numbers(runs: Runs) -> Mapping[str, str]:
    """Shares by variant and steps, the largest of any weight, and what was learned.

    ``both m 1`` is the mean share after tasks of one step, with dropout and weight decay;
    ``both m 100 d0 w0`` that without; ``worst both m`` the largest of any weight, task and setting.
    """
    found: dict[str, str] = {}
    for variant in VARIANTS:
        own = _of(runs, variant)
        harshest = _harshest(own)
        for run in own:
            steps = run.setting("train.steps")
            ends = [f"{variant} {steps} {_given(run)}"]
            if run in list(harshest):
                ends.append(f"{variant} {steps}")
            for name, value in [*SIDES.items(), ("angle", "angle")]:
                text = f"{Runs([run]).probed_after_tasks(PROBE, value):.2g}"
                found |= {f"{name} {end}": text for end in ends}
        for name, value in SIDES.items():
            found[f"worst {name} {variant}"] = f"{max(_all(run, value) for run in own):.2g}"
        longest = harshest.where(train__steps=max(harshest.values("train.steps")))
        usual = _harshest(_of(runs, "m")).where(train__steps=longest[0].setting("train.steps"))
        for metric in ("learned", "transfer"):
            found[f"{metric} {variant}"] = str(longest.estimate(metric))
            found[f"Δ{metric} {variant}"] = str(longest.difference(usual, metric))
    return found


def _of(runs: Runs, variant: str) -> Runs:
    """The runs of a variant, with few steps first."""
    if variant in ("lora", "finetune"):
        own = runs.where(method=variant)
    else:
        own = runs.where(method="nusa", method__trainable=variant)
    return Runs(sorted(own, key=lambda run: run.setting("train.steps")))


def _harshest(own: Runs) -> Runs:
    """Those with the largest dropout and weight decay."""
    dropout = max(own.values(DROPOUT), key=lambda value: value or 0)
    return own.where(method__dropout=dropout, train__weight_decay=own.values(DECAY)[-1])


def _given(run: Run) -> str:
    dropout, decay = run.setting(DROPOUT), run.setting(DECAY)
    return f"w{decay:g}" if dropout is None else f"d{dropout:g} w{decay:g}"


def _all(run: Run, value: str) -> float:
    """The largest number of any weight after any task."""
    details = run.result.probes[PROBE].values
    rows = [row for name, row in details.items() if name.startswith(f"{value}/")]
    return max(x for row in rows for x in row[1:] if x is not None)
