"""What NuSA-CL's decompositions cost beside its training."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from rich.progress import track

from clbench.core.foreign.console import SafeConsole
from clbench.engine.rundir.provenance import collect
from clbench.studies import decompositions
from clbench.studies.analysis import Row, Table
from clbench.studies.decompositions import (
    RANK,
    WAYS,
    Tower,
    all_threads,
    block_seconds,
    decomposition_seconds,
    embedded_weights,
    errors,
    random_weight,
    towers,
    widths,
)
from clbench.studies.figures import Curve, Panel, draw_curves
from clbench.studies.runs import Runs
from clbench.studies.study import source_digest

MODELS: Final = {
    "B/32": "ViT-B-32",
    "B/16": "ViT-B-16",
    "L/14": "ViT-L-14",
    "H/14": "ViT-H-14",
    "g/14": "ViT-g-14",
    "bigG/14": "ViT-bigG-14",
}
STEPS: Final = 1000
"""Of a task, as NuSA-CL was released; so is the batch size."""
BATCH: Final = 16
CLASSES: Final = 100
"""Whose prompts are encoded in every step."""
CUT: Final = 16
"""Tokens of prompts that are cut after their end, as clbench does; the release encodes all 77."""
REPEATS: Final = 3
TITLES: Final = {
    "svd": "SVD",
    "gram64": "Gram, 64 bit",
    "gram32": "Gram, 32 bit",
    "randomised": "randomised",
}
LEAST: Final = 1e-6
"""Degrees that smaller angles are drawn at."""
EMBEDDED: Final = "embedded"


def basis(quick: bool) -> dict[str, Any]:
    """What `measure` depends on, besides the machine."""
    weights = hashlib.sha256(b"".join(w.numpy().tobytes() for w in embedded_weights()))
    return {
        "torch": torch.__version__,
        "cuda": torch.cuda.is_available(),
        "models": list(MODELS.values()),
        "sizes": [BATCH, CLASSES, CUT, REPEATS],
        "weights": weights.hexdigest()[:16],
        "source": source_digest(measure, decompositions),
    }


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of decompositions by width, of blocks by shape, and errors; per kind of device."""
    models = list(MODELS.values())[: 1 if quick else None]
    repeats = 1 if quick else REPEATS
    blocks = {
        _block(tower, tokens): (tower, tokens)
        for model in models
        for tower in towers(model)
        for tokens in ((None, CUT) if tower.causal else (None,))
    }
    kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    found: dict[str, Any] = {"torch": torch.__version__}
    with all_threads(), torch.random.fork_rng():
        for kind in kinds:
            device = torch.device(kind)
            machine = collect(device, object)
            own = found[kind] = {key: machine[key] for key in ("processor", "device", "threads")}
            own["decompositions"] = {
                str(width): decomposition_seconds(random_weight(width).to(device), RANK, repeats)
                for width in _shown(widths(models), f"decompositions, {kind}")
            }
            own["blocks"] = {
                name: block_seconds(
                    tower, CLASSES if tower.causal else BATCH, repeats, device, tokens
                )
                for name, (tower, tokens) in _shown(blocks.items(), f"training, {kind}")
            }
        found["errors"] = {
            str(width): errors(random_weight(width), RANK)
            for width in _shown(widths(models), "exactness")
        }
        some = embedded_weights()
        found["errors"][EMBEDDED] = _worst([errors(w, len(w) // 2) for w in some])
    return found


def table(runs: Runs) -> Table:
    """Decompositions and training of a task by model; a row per model and kind of device."""
    rows: list[Row] = []
    for kind, model in _cases(runs):
        cost = _Cost(runs, kind, model)
        rows.append(
            (
                kind,
                model,
                cost.weights,
                _middle(cost.decompositions("svd", "in turn")),
                *(_middle(cost.decompositions(way)) for way in WAYS),
                _middle(cost.training()) / 3600,
                _middle(cost.training(cut=True)) / 3600,
                _middle(cost.share()),
            )
        )
    titles = [f"{title}, s" for title in TITLES.values()]
    header = (
        "Device",
        "CLIP",
        "Weights",
        "SVD in turn, s",
        *titles,
        "Task, h",
        "Task, prompts cut, h",
        "SVD / task, %",
    )
    digits = {"Task, h": 2, "Task, prompts cut, h": 2, "SVD / task, %": 3}
    machines = [
        f"{kind}: {runs.measured[kind]['processor'] if kind == 'cpu' else own['device']}, "
        f"{own['threads']} threads, PyTorch {runs.measured['torch']}."
        for kind, own in _devices(runs).items()
    ]
    exact = ", ".join(f"{title} {_angle(runs, way)}" for way, title in TITLES.items())
    notes = (*machines, f"Largest angle to the tail that a 64-bit SVD finds, any width: {exact}.")
    return Table(header, rows, notes, digits)


def draw(runs: Runs) -> Figure:
    """Seconds by width, share of a task's training by its length, and errors by width."""
    measured = runs.measured
    panels = []
    for kind, own in _devices(runs).items():
        found = own["decompositions"]
        sizes = [int(width) for width in found]
        names = [model for k, model in _cases(runs) if k == kind]
        costs = [_Cost(runs, kind, model) for model in names]
        hours = [_middle(cost.training()) / 3600 for cost in costs]
        where = f", {kind}" if len(_devices(runs)) > 1 else ""
        panels += [
            Panel(
                f"One weight{where}",
                "width",
                "seconds",
                [
                    Curve(title, sizes, [_middle(f[way]["at once"]) for f in found.values()])
                    for way, title in TITLES.items()
                ],
                log=True,
                log_y=True,
                ticks=_ends(sizes),
            ),
            Panel(
                f"All weights{where}",
                "training of a task, hours",
                "% of it",
                [
                    Curve(title, hours, [_middle(cost.share(way)) for cost in costs])
                    for way, title in TITLES.items()
                ],
                log=True,
                log_y=True,
            ),
        ]
    errors_of = {w: e for w, e in measured["errors"].items() if w != EMBEDDED}
    sizes = [int(width) for width in errors_of]
    panels.append(
        Panel(
            "Largest angle",
            "width",
            "degrees",
            [
                Curve(title, sizes, [max(e[way]["angle"], LEAST) for e in errors_of.values()])
                for way, title in TITLES.items()
            ],
            log=True,
            log_y=True,
            ticks=_ends(sizes),
        )
    )
    return draw_curves(panels)


def numbers(runs: Runs) -> Mapping[str, str]:
    """Times, shares and errors; what was timed has its range over the repeats."""
    found = {"torch": str(runs.measured["torch"])}
    for kind, own in _devices(runs).items():
        found[f"{kind} name"] = own["processor" if kind == "cpu" else "device"]
        found[f"{kind} threads"] = str(own["threads"])
        for way in WAYS:
            for width, seconds in own["decompositions"].items():
                name = f"{kind} {way} {width}"
                found[name] = _spread(seconds[way]["at once"])
                found[f"{name} in turn"] = _spread(seconds[way]["in turn"])
                ratios = _each(seconds[way]["in turn"], seconds[way]["at once"])
                found[f"{name} gain"] = _spread(ratios)
    for kind, model in _cases(runs):
        cost, name = _Cost(runs, kind, model), f"{kind} {model}"
        found[f"{name} weights"] = str(cost.weights)
        found[f"{name} hours"] = _spread([t / 3600 for t in cost.training()])
        found[f"{name} hours cut"] = _spread([t / 3600 for t in cost.training(cut=True)])
        found[f"{name} in turn"] = _spread(cost.decompositions("svd", "in turn"))
        for way in WAYS:
            found[f"{name} {way}"] = _spread(cost.decompositions(way))
            found[f"{name} {way} share"] = _spread(cost.share(way))
            found[f"{name} {way} share cut"] = _spread(cost.share(way, cut=True))
        for percent in (1, 10):
            steps = [STEPS * share / percent for share in cost.share()]
            found[f"{name} steps {percent}%"] = _spread(steps)
            faster = [percent / share for share in cost.share()]
            found[f"{name} faster {percent}%"] = _spread(faster)
    for width, ways in runs.measured["errors"].items():
        for way, error in ways.items():
            found[f"angle {way} {width}"] = f"{error['angle']:.2g}°"
            found[f"energy {way} {width}"] = f"{error['energy']:.3g}"
    for way in WAYS:
        found[f"angle {way}"] = _angle(runs, way)
    return found


class _Cost:
    """What a task costs with a model on a kind of device; lists hold a number per repeat."""

    def __init__(self, runs: Runs, kind: str, model: str) -> None:
        self._own = runs.measured[kind]
        self._towers = towers(MODELS[model])

    @property
    def weights(self) -> int:
        """How many are decomposed."""
        return sum(4 * tower.layers for tower in self._towers)

    def decompositions(self, way: str, how: str = "at once") -> list[float]:
        """Seconds for all weights."""
        return self._total(
            (4 * tower.layers, self._own["decompositions"][str(tower.width)][way][how])
            for tower in self._towers
        )

    def training(self, cut: bool = False) -> list[float]:
        """Seconds of the blocks of both encoders."""
        return self._total(
            (
                STEPS * tower.layers,
                self._own["blocks"][_block(tower, CUT if cut and tower.causal else None)],
            )
            for tower in self._towers
        )

    def share(self, way: str = "svd", cut: bool = False) -> list[float]:
        """Decompositions over training, in percent."""
        return [100 * ratio for ratio in _each(self.decompositions(way), self.training(cut))]

    @staticmethod
    def _total(parts: Any) -> list[float]:
        counts, times = zip(*parts, strict=True)
        return [
            sum(count * seconds for count, seconds in zip(counts, one, strict=True))
            for one in zip(*times, strict=True)
        ]


def _ends(sizes: Sequence[int]) -> list[int]:
    """The smallest, a middle and the largest size: ticks with room for them."""
    return [sizes[0], sizes[len(sizes) // 3], sizes[-1]]


def _block(tower: Tower, tokens: int | None) -> str:
    """A name for blocks that take the same time."""
    kind = "text" if tower.causal else "image"
    return f"{kind}, {tower.width} wide, {tokens or tower.tokens} tokens"


def _devices(runs: Runs) -> dict[str, dict[str, Any]]:
    return {kind: runs.measured[kind] for kind in ("cpu", "cuda") if kind in runs.measured}


def _cases(runs: Runs) -> list[tuple[str, str]]:
    """Kinds of devices and models of which everything was measured."""
    return [
        (kind, name)
        for kind, own in _devices(runs).items()
        for name, model in MODELS.items()
        if all(_block(tower, None) in own["blocks"] for tower in towers(model))
    ]


def _worst(found: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        way: {key: max(f[way][key] for f in found) for key in found[0][way]} for way in found[0]
    }


def _angle(runs: Runs, way: str) -> str:
    return f"{max(e[way]['angle'] for e in runs.measured['errors'].values()):.2g}°"


def _each(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def _spread(values: Sequence[float]) -> str:
    """The median and the range, with three digits.

    >>> _spread([1.0, 12.345, 2000.4])
    '12.3 (1 to 2,000)'
    """
    middle, low, high = (_digits(f(values)) for f in (_middle, min, max))
    return f"{middle} ({low} to {high})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _shown(items: Any, title: str) -> Any:
    """Items one by one, with a bar on a terminal."""
    console = SafeConsole(stderr=True)
    return track(
        list(items), title, console=console, transient=True, disable=not console.is_terminal
    )
