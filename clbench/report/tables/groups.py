"""Which runs are comparable and share a table, and which of them share a row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clbench.core.errors import ClbenchError
from clbench.core.identity import LATER, chosen_options
from clbench.core.results.result import RunResult
from clbench.core.task import Setting

BY_BATCH = "†"
"""Marks methods that decide by the batch."""
UPPER = "(upper bound)"
"""Marks upper bounds."""
_STATUS_ORDER = ("complete", "partial", "quick")


@dataclass(frozen=True)
class ComparableGroup:
    """Comparable runs.

    Attributes:
        name: unique among the groups of one report and fit for a folder.
        title: what the runs have in common, for a heading.
        reason: why they are not in the first group's table; empty for the first group.
        results: sorted by method, hyper-parameters and seed.
    """

    name: str
    title: str
    reason: str
    results: tuple[RunResult, ...]

    @property
    def setting(self) -> Setting:
        """The label space at test."""
        return self.results[0].benchmark.setting

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for readers of the tables besides `reason`, one line each."""
        found = []
        if any(result.method.decides_by_batch for result in self.results):
            found.append(
                f"{BY_BATCH} Decides by the batch: answers depend on the other images of a test "
                "batch, which holds images of one task, so that the task is known in part."
            )
        if any(map(is_upper_bound, self.results)):
            found.append(
                "An upper bound was trained on the data of all tasks: its Transfer is on tasks "
                "that it has seen, and it takes no part in the ranking."
            )
        spread = _row_zero_spread(self.results)
        if spread:
            found.append(
                f"The accuracies before training differ between runs by up to {100 * spread:.2f} "
                "points, though model and test images agree: they were measured on another device, "
                "in another precision or with other library versions."
            )
        return tuple(found)


@dataclass(frozen=True)
class MethodRuns:
    """The runs of one method with one set of hyper-parameters: a row of a table.

    Attributes:
        label: the method's title, with the hyper-parameters in which its rows differ.
        slug: its name for file names, with the hash of the settings if there are several.
        results: one per seed, in the order of the seeds.
    """

    label: str
    slug: str
    results: tuple[RunResult, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each run."""
        return tuple(result.seed for result in self.results)


def comparable_groups(results: Iterable[RunResult]) -> list[ComparableGroup]:
    """Sort runs into groups of comparable ones, complete runs first.

    Runs of one group agree on benchmark, version, setting, order, tasks, options, training and
    test images (so also on the draw of few-shot images), backbone weights and status. The
    outcome does not depend on the order of `results`.

    Raises:
        ClbenchError: there are no results, or two different runs have the same identity.
    """
    collected: dict[str, list[RunResult]] = {}
    for result in results:
        collected.setdefault(_dump(_common(result)), []).append(result)
    if not collected:
        raise ClbenchError("there are no results to report")
    ordered = sorted(collected.values(), key=_group_order)
    groups: list[ComparableGroup] = []
    for members in ordered:
        rows = method_runs(members)
        groups.append(
            ComparableGroup(
                name=_unused(_name(members[0]), {group.name for group in groups}),
                title=_title(members[0]),
                reason=_reason(members[0], ordered[0][0], groups[0].name) if groups else "",
                results=tuple(result for row in rows for result in row.results),
            )
        )
    return groups


def is_upper_bound(result: RunResult) -> bool:
    """Whether a run had the data of all tasks, so that no continual learner can be held to it."""
    return "all-data" in result.method.needs


def beside_others(result: RunResult) -> bool:
    """Whether other runs shared the machine with a run, as far as it says."""
    launch = result.provenance.get("launch")
    return isinstance(launch, dict) and bool(launch.get("shared"))


def method_runs(results: Sequence[RunResult]) -> list[MethodRuns]:
    """Collect the seeds of each method and set of hyper-parameters into rows.

    Rows are sorted by name. A run given twice counts once.

    Raises:
        ClbenchError: the runs are not comparable, or two different ones have the same method,
            hyper-parameters and seed.
    """
    if len({_dump(_common(result)) for result in results}) > 1:
        raise ClbenchError("these runs are not comparable: use comparable_groups first")
    rows: dict[tuple[str, str], dict[int, RunResult]] = {}
    for result in results:
        seeds = rows.setdefault((result.method.name, _dump(_choices(result))), {})
        if seeds.setdefault(result.seed, result) != result:
            raise ClbenchError(
                f"two different runs of {result.method.name!r} on {result.benchmark.name!r} have "
                f"seed {result.seed} and the same settings: report only one of them"
            )
    variants: dict[str, list[Mapping[str, Any]]] = {}
    for (method, _), seeds in rows.items():
        variants.setdefault(method, []).append(_choices(next(iter(seeds.values()))))
    varied = {method: _varied(choices) for method, choices in variants.items()}
    return sorted(
        (
            _method_runs(seeds, varied[method], only=len(variants[method]) == 1)
            for (method, _), seeds in rows.items()
        ),
        key=lambda row: (row.results[0].method.name, _natural(row.label)),
    )


def _varied(variants: Sequence[Mapping[str, Any]]) -> set[str]:
    """Keys under which not all have the same value."""
    keys = {key for choices in variants for key in choices}
    return {key for key in keys if len({_dump(choices.get(key)) for choices in variants}) > 1}


def _method_runs(seeds: Mapping[int, RunResult], varied: set[str], *, only: bool) -> MethodRuns:
    results = tuple(seeds[seed] for seed in sorted(seeds))
    method, title = results[0].method.name, results[0].method.title
    choices = _choices(results[0])
    differing = [f"{key}={_text(value)}" for key, value in choices.items() if key in varied]
    marked = f"{title} {BY_BATCH}" if results[0].method.decides_by_batch else title
    marked += f" {UPPER}" if is_upper_bound(results[0]) else ""
    label = f"{marked} ({', '.join(differing)})" if differing else marked
    slug = method if only else f"{method}-{results[0].config_hash}"
    return MethodRuns(label, slug, results)


def _common(result: RunResult) -> dict[str, Any]:
    """What comparable runs agree on, by the names that messages use."""
    splits = sorted(result.data.splits.items())
    tests = {key: digest for key, digest in splits if key.endswith("/test")}
    trains = {key: digest for key, digest in splits if key.endswith("/train")}
    return {
        "status": result.status,
        "benchmark": result.benchmark.name,
        "benchmark version": result.benchmark.version,
        "setting": result.benchmark.setting.value,
        "task order": result.benchmark.order,
        "backbone": result.backbone.model,
        "backbone fingerprint": result.backbone.fingerprint,
        "tasks": result.benchmark.tasks,
        "benchmark options": chosen_options(_section(result, "benchmark").get("options", {})),
        "training images": (trains,),
        "test images": (result.accuracy.counts, tests),
    }


def _choices(result: RunResult) -> dict[str, Any]:
    """What tells rows of one method apart: its hyper-parameters and how it was trained."""
    train = {f"train.{key}": value for key, value in _section(result, "train").items()}
    # Settings that came later are choices only where they are used: older results lack them.
    train = {key: value for key, value in train.items() if value != LATER.get(key, ...)}
    precision = {k: v for k, v in result.config.items() if k == "precision"}
    return {**result.method.params, **train, **precision}


def _section(result: RunResult, key: str) -> Mapping[str, Any]:
    section = result.config.get(key)
    return section if isinstance(section, dict) else {}


def _row_zero_spread(results: Sequence[RunResult]) -> float:
    """The largest difference between two runs in an accuracy before training."""
    rows = [result.accuracy.values[0] for result in results]
    known = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return max((max(column) - min(column) for column in known if column), default=0.0)


def _title(result: RunResult) -> str:
    benchmark, backbone = result.benchmark, result.backbone
    status = "" if result.status == "complete" else f" [{result.status} runs]"
    return (
        f"{benchmark.name} v{benchmark.version}, order {benchmark.order}, {benchmark.setting}, "
        f"{backbone.model} ({backbone.weights}){status}"
    )


def _reason(result: RunResult, first: RunResult, first_name: str) -> str:
    here, there = _common(result), _common(first)
    differences = []
    for key, value in here.items():
        if _dump(value) != _dump(there[key]):
            long = isinstance(value, tuple)
            shown = f"{key} {_text(value)}, not {_text(there[key])}"
            differences.append(f"other {key}" if long else shown)
    return f"Not to be compared with {first_name}: {'; '.join(differences)}."


def _name(result: RunResult) -> str:
    parts = [result.benchmark.name, result.benchmark.order, result.backbone.model]
    if result.status != "complete":
        parts.append(result.status)
    return file_name("-".join(parts))


def file_name(text: str) -> str:
    """The text with everything but letters, digits, dots and hyphens made a hyphen.

    >>> file_name("MTIL full/ViT-B-16")
    'MTIL-full-ViT-B-16'
    """
    return "".join(c if c.isalnum() or c in ".-_" else "-" for c in text).lstrip(".") or "-"


def _unused(name: str, taken: set[str]) -> str:
    number = 2
    candidate = name
    while candidate in taken:
        candidate = f"{name}-{number}"
        number += 1
    return candidate


def _group_order(members: Sequence[RunResult]) -> tuple[int, list[str]]:
    common = _common(members[0])
    return _STATUS_ORDER.index(members[0].status), [_dump(value) for value in common.values()]


def _natural(label: str) -> list[str | float]:
    """Sort key in which rank=8 comes before rank=64: text and numbers in turn."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", label)
    return [float(part) if i % 2 else part for i, part in enumerate(parts)]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else _dump(value)


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
