"""What two tasks do to each other, from alike to unlike."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from torch import Tensor

from clbench import registry
from clbench.clip.model import CLIP
from clbench.clip.weights.loading import load_clip
from clbench.core.settings import BackboneSettings
from clbench.datamodules.mini.domains import TASKS, domain_part
from clbench.datamodules.mini.sequence import tasks
from clbench.datamodules.sequence import TaskSequence
from clbench.engine.rundir.provenance import Inputs
from clbench.studies.analysis import Row, Table
from clbench.studies.figures import Curve, Panel, draw_curves, middle
from clbench.studies.runs import Estimate, Runs
from clbench.studies.spread import Interval, mean_of, rank_correlation, slope_within, within
from clbench.studies.study import source_digest

DIRECTIONS: Final = 8
"""Principal directions of a task's features that are compared, of 128."""
SIMILARITIES: Final = {"cosine": "Cosine", "overlap": "Overlap"}
MEASURES: Final = {
    "forgetting": "Forgetting",
    "transfer": "Transfer, gain",
    "room": "Room",
    "added": "Added",
}
NEIGHBOURS: Final = (
    {"digits", "greek", "latin"},
    {"clocks", "shapes"},
    {"terrain", "textures"},
)
"""Domains that are drawn alike: written characters, outlines, surfaces."""
FINE: Final = ("Cosine", "Overlap", "Room", "Added")
"""Columns of the table with two digits after the point."""
KINDS: Final = ("halves", "neighbours", "strangers")
BASELINE: Final = "finetune"


@dataclass(frozen=True, eq=False)
class Pair:
    """Two tasks that one method learned one after the other.

    Attributes:
        method: which.
        first: name of the first task.
        second: of the second.
        similarity: how alike they are, by measure.
        found: `MEASURES` in percent points; those over images have intervals.
    """

    method: str
    first: str
    second: str
    similarity: Mapping[str, float]
    found: Mapping[str, float | Estimate]

    @property
    def kind(self) -> str:
        """Halves of one domain, neighbouring domains, or strangers."""
        domains = {domain_part(task)[0] for task in (self.first, self.second)}
        if len(domains) == 1:
            return "halves"
        return "neighbours" if any(domains <= group for group in NEIGHBOURS) else "strangers"


def basis(quick: bool) -> dict[str, Any]:
    """What `measure` depends on."""
    inputs = Inputs.of(*_inputs(quick))
    return {
        "weights": inputs.weights,
        "images": dict(inputs.splits),
        "directions": DIRECTIONS,
        "source": source_digest(measure, principal_directions),
    }


def measure(quick: bool) -> dict[str, Any]:
    """How alike all halves of all domains are to the untrained CLIP.

    Returns:
        Two tables by names of tasks: ``cosine`` of the mean features of the training images, and
        ``overlap``, the mean squared cosine of the angles between the leading principal directions.
    """
    model, sequence = _inputs(quick)
    names = [task.name for task in sequence.benchmark.tasks]
    means, bases = [], []
    with torch.no_grad():
        for index in range(len(names)):
            images = sequence.train_set(index)
            features = model.encode_image(images.__getitems__(range(len(images)))[0]).double()
            means.append(features.mean(dim=0))
            bases.append(principal_directions(features, DIRECTIONS))
    centroids = torch.nn.functional.normalize(torch.stack(means), dim=1)
    pairs = list(itertools.product(range(len(names)), repeat=2))
    overlap = {(i, j): float((bases[i].T @ bases[j]).square().sum()) / DIRECTIONS for i, j in pairs}
    cosine = {(i, j): float(centroids[i] @ centroids[j]) for i, j in pairs}
    return {
        key: {a: {b: found[i, j] for j, b in enumerate(names)} for i, a in enumerate(names)}
        for key, found in (("cosine", cosine), ("overlap", overlap))
    }


def _inputs(quick: bool) -> tuple[CLIP, TaskSequence]:
    """The untrained CLIP, and the halves of all domains as tasks."""
    model = load_clip(BackboneSettings(**registry.benchmark("mini").backbone))
    names = [f"{domain}-{part}of2" for domain in TASKS for part in (1, 2)]
    return model, tasks(order=names, quick=quick)


def principal_directions(features: Tensor, count: int) -> Tensor:
    """Leading right singular vectors of features around their mean, ``(D, count)``."""
    centred = features - features.mean(dim=0)
    rows: Tensor = torch.linalg.svd(centred, full_matrices=False).Vh[:count]
    return rows.T


def table(runs: Runs) -> Table:
    """A row per method and pair."""
    rows: list[Row] = [
        (
            pair.method,
            pair.first,
            pair.second,
            pair.kind,
            *(pair.similarity[key] for key in SIMILARITIES),
            *(pair.found[key] for key in MEASURES),
        )
        for pair in pairs_of(runs)
    ]
    header = (
        "Method",
        "First",
        "Second",
        "Kind",
        *SIMILARITIES.values(),
        *MEASURES.values(),
    )
    notes = (
        "Forgetting: what the first task lost while the second was learned. Transfer, gain: "
        "accuracy on the second task after the first alone, minus zero-shot. Both in points.",
        "Room: share of the directions of the weights outside the principal ones, when the second "
        "task begins. Added: what the second task adds to the rank of the whole update. Both in "
        "percent of the full rank, as means over the weights.",
    )
    return Table(header, rows, notes, dict.fromkeys(FINE, 2))


def draw(runs: Runs) -> Figure:
    """A panel per measure, a dot per pair and method."""
    pairs = pairs_of(runs)
    methods = list(dict.fromkeys(pair.method for pair in pairs))
    panels = [
        Panel(
            title,
            "cosine",
            "points" if key in ("forgetting", "transfer") else "% of full rank",
            [
                Curve(
                    method,
                    [p.similarity["cosine"] for p in pairs if p.method == method],
                    [middle(p.found[key]) for p in pairs if p.method == method],
                    joined=False,
                )
                for method in methods
            ],
            level=0.0 if key in ("forgetting", "transfer") else None,
        )
        for key, title in MEASURES.items()
    ]
    return draw_curves(panels, level="no change", columns=2)


def numbers(runs: Runs) -> Mapping[str, str]:
    """Every pair; means by kind, their differences; correlations and slopes over all pairs.

    ``room before`` is that of the untrained weights.
    """
    found = {"room before": f"{100 - 100 * runs.probed('spectrum', 'principal_rank', 0):.2f}"}
    pairs = pairs_of(runs)
    methods = list(dict.fromkeys(pair.method for pair in pairs))
    for pair in pairs:
        place = f"{pair.first} {pair.second}"
        found |= {f"{key} {place}": f"{value:.2f}" for key, value in pair.similarity.items()}
        found |= {f"{key} {pair.method} {place}": _told(key, pair.found[key]) for key in MEASURES}
    for key in SIMILARITIES:
        for kind in KINDS:
            some = [p.similarity[key] for p in pairs if p.kind == kind and p.method == methods[0]]
            found[f"{key} {kind}"] = f"{sum(some) / len(some):.2f}"
    for method, key in itertools.product(methods, MEASURES):
        own = [pair for pair in pairs if pair.method == method]
        values = [middle(pair.found[key]) for pair in own]
        firsts = [pair.first for pair in own]
        found[f"{key} {method}"] = _told(key, mean_of(values))
        for name in SIMILARITIES:
            alike = [pair.similarity[name] for pair in own]
            where = f"{key} {method} {name}"
            found[f"r {where}"] = str(rank_correlation(alike, values))
            inside = within(alike, firsts), within(values, firsts)
            found[f"r within {where}"] = str(rank_correlation(*inside))
            steps = [10 * value for value in alike]
            found[f"slope {where}"] = _told(key, slope_within(steps, values, firsts))
        by_kind = {kind: _by_first(own, key, kind) for kind in KINDS}
        for kind, means in by_kind.items():
            found[f"{key} {method} {kind}"] = _told(key, mean_of(list(means.values())))
        for kind in KINDS[:2]:
            others = by_kind["strangers"]
            some = [value - others[first] for first, value in by_kind[kind].items()]
            found[f"Δ{key} {method} {kind}-strangers"] = _told(key, mean_of(some, signed=True))
        if method != BASELINE:
            usual = {(p.first, p.second): p.found[key] for p in pairs if p.method == BASELINE}
            changes = {p: middle(p.found[key]) - middle(usual[p.first, p.second]) for p in own}
            name = f"Δ{key} {method}-{BASELINE}"
            found[name] = _told(key, mean_of(list(changes.values()), signed=True))
            for kind in KINDS:
                some = [change for p, change in changes.items() if p.kind == kind]
                found[f"{name} {kind}"] = _told(key, mean_of(some, signed=True))
    return found


def pairs_of(runs: Runs) -> list[Pair]:
    """All pairs of tasks by method, the seeds of each taken together."""
    found = []
    for method in runs.values("method"):
        own = runs.where(method=method)
        for first, second in dict.fromkeys(run.result.benchmark.tasks for run in own):
            some = own.where(benchmark__order=[first, second])
            back = some.estimate("backward_transfer")
            spectrum = [
                [100 * some.probed("spectrum", key, row) for row in (1, 2)]
                for key in ("principal_rank", "update_rank")
            ]
            values: dict[str, float | Estimate] = {
                "forgetting": Estimate(-back.value, -back.high, -back.low),
                "transfer": some.gain("transfer"),
                "room": 100 - spectrum[0][0],
                "added": spectrum[1][1] - spectrum[1][0],
            }
            alike = {key: runs.measured[key][first][second] for key in SIMILARITIES}
            found.append(Pair(method, first, second, alike, values))
    return found


def _by_first(pairs: list[Pair], key: str, kind: str) -> dict[str, float]:
    """The measure of a kind of pairs, as the mean over those with the same first task."""
    groups: dict[str, list[float]] = {}
    for pair in pairs:
        if pair.kind == kind:
            groups.setdefault(pair.first, []).append(middle(pair.found[key]))
    return {first: sum(values) / len(values) for first, values in groups.items()}


def _told(key: str, value: float | Estimate) -> str:
    """A number with its interval if it has one; ranks change little and get two digits."""
    if not isinstance(value, Estimate):
        return f"{value:.2f}"
    fine = MEASURES[key] in FINE
    return str(Interval(value.value, value.low, value.high) if fine else value)
