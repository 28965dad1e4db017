"""Published and measured numbers, their difference, and whether they are comparable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.formats.cells import Cell, Grid
from clbench.report.papers.published import (
    PublishedNumber,
    abbreviation,
    deviations,
    name_in_papers,
    papers,
    plain,
    published_numbers,
)
from clbench.report.tables.groups import MethodRuns, method_runs

METRICS = {"transfer": "Transfer", "average": "Avg", "last": "Last", "zero_shot_acc": "Zero-shot"}
WITHIN, OUTSIDE, NOT_COMPARABLE = "within tolerance", "outside", "not comparable"
COLUMNS = (
    "method",
    "metric",
    "task",
    "published",
    "measured",
    "std",
    "n",
    "difference",
    "tolerance",
    "verdict",
    "remarks",
    "source",
)
NOTE = (
    "Percent and percentage points, mean over n seeds; differences and tolerances are of numbers "
    "rounded to one decimal, and the tolerances have their reasons in experiments/papers.yaml. "
    "Where numbers are not comparable, no difference is given."
)
NOTHING_PUBLISHED = "No numbers of these methods on this benchmark are known from papers."

Deviation = Callable[[RunResult], str | None]
"""How the settings of a run differ from its recipe; None if they do not."""


def published_table(results: Sequence[RunResult], deviation: Deviation) -> pd.DataFrame:
    """Published numbers beside those of comparable runs.

    Args:
        results: of one group (see `comparable_groups`).
        deviation: whether a run was made with its recipe.

    Returns:
        One row per published number of the method and metric, those of single tasks last.
        Columns: `method` (row label), `metric` (`METRICS`), `task` (empty for the whole run),
        `published`, `measured` and `std` (percent, mean and sample standard deviation over
        seeds), `n`, `difference` and `tolerance` (points, NaN where not comparable), `verdict`,
        `remarks`, `source`. Numbers of other task orders appear only where there is none of the
        same order. Empty if nothing was published.
    """
    records = []
    for row in method_runs(results):
        for number in _counterparts(row):
            measured = [_measured(result, number) for result in row.results]
            if None not in measured:
                records.append(_record(row, number, pd.Series(measured), deviation))
    frame = pd.DataFrame.from_records(records, columns=list(COLUMNS))
    single = frame["task"] != ""
    return pd.concat([frame[~single], frame[single]], ignore_index=True)


def published_notes(table: pd.DataFrame, results: Sequence[RunResult]) -> list[str]:
    """What stands below `published_table`: how to read it, and known deviations from the papers."""
    if not len(table):
        return [NOTHING_PUBLISHED]
    found: dict[str, list[str]] = {}
    for row in method_runs(results):
        name = row.results[0].method.name
        if row.label in set(table["method"]):
            for text in deviations(name, row.results[0].benchmark.name):
                found.setdefault(text, []).append(name)
    return [
        NOTE,
        *(
            f"Other than in published code ({', '.join(dict.fromkeys(names))}): {text}"
            for text, names in found.items()
        ),
    ]


def published_grid(table: pd.DataFrame) -> Grid:
    """Print `published_table`; a rule between methods."""
    rows, rules = [], set()
    for i, row in enumerate(table.to_dict("records")):
        if i and row["method"] != table["method"][i - 1]:
            rules.add(i)
        spread = "" if math.isnan(row["std"]) else f" ± {row['std']:.1f}"
        known = not math.isnan(row["difference"])
        cells = (
            row["method"],
            f"{row['metric']} {abbreviation(row['task'])}".rstrip(),
            f"{row['published']:.1f}",
            f"{row['measured']:.1f}{spread}",
            str(row["n"]),
            _signed(row["difference"]) if known else "",
            f"{row['tolerance']:.1f}" if known else "",
            row["verdict"],
            row["remarks"],
            row["source"],
        )
        rows.append(tuple(Cell(text) for text in cells))
    header = (
        *("Method", "Metric", "Published", "Measured", "n", "Difference", "Tolerance"),
        *("Verdict", "Remarks", "Source"),
    )
    numeric = tuple(title in header[2:7] for title in header)
    return Grid(header, tuple(rows), numeric, frozenset(rules))


def _record(
    row: MethodRuns, number: PublishedNumber, measured: pd.Series[float], deviation: Deviation
) -> dict[str, Any]:
    reason = incomparable(row.results[0], number) or deviation(row.results[0])
    # As printed: both with one decimal.
    difference = round(round(100 * measured.mean(), 1) - round(number.value, 1), 1) + 0.0
    allowed = float("nan") if reason else _tolerance(row.results[0], number)
    variant = "" if number.method == number.paper_method else number.method
    verdict = WITHIN if abs(difference) <= allowed else OUTSIDE
    return {
        "method": row.label,
        "metric": METRICS[number.metric],
        "task": number.task,
        "published": number.value,
        "measured": 100 * measured.mean(),
        "std": 100 * measured.std(),
        "n": len(measured),
        "difference": float("nan") if reason else difference,
        "tolerance": allowed,
        "verdict": f"{NOT_COMPARABLE}: {reason}" if reason else verdict,
        "remarks": number.remarks,
        "source": f"{variant}: {number.source}" if variant else number.source,
    }


def incomparable(result: RunResult, number: PublishedNumber) -> str | None:
    """Why a run is not comparable with a published number; None if it is.

    The number must be of the run's method and benchmark.
    """
    return next(_reasons(result, number), None)


def _reasons(result: RunResult, number: PublishedNumber) -> Iterator[str]:
    """Reasons against a comparison, the most important first."""
    if result.status != "complete":
        yield {"quick": "smoke run", "partial": "unfinished run"}[result.status]
    expected = papers()["backbone"]
    used = result.backbone
    if (used.model, used.weights) != (expected["model"], expected["weights"]):
        yield f"other backbone: {used.model} ({used.weights})"
    if number.backbone != expected["published"]:
        yield f"other backbone: the paper's is {number.backbone}"
    yield from _protocol_reasons(result, number)


def _protocol_reasons(result: RunResult, number: PublishedNumber) -> Iterator[str]:
    rule = papers()["benchmarks"][number.benchmark]
    setting = result.benchmark.setting
    if "never" in rule:
        yield rule["never"]
    elif setting.value != rule["setting"]:
        yield f"other setting: {setting}, published {rule['setting']}"
    if not _same_order(result, number):
        yield f"other task order: {result.benchmark.order}, published {number.order}"
    if setting is not Setting.CLASS_INCREMENTAL and "coop" not in rule:
        yield from _split_reasons(result, number)
    if number.by_batch and not result.method.decides_by_batch:
        yield papers()["decided_by_batch"]["reason"]
    if number.paper_method not in rule.get("only", [number.paper_method]):
        yield rule["otherwise"]
    expected = papers()["reference_data"].get(number.paper_method, {}).get(result.benchmark.name)
    if expected is not None and expected != result.data.reference:
        never = expected.removeprefix("never: ")
        had = f"{result.data.reference or 'none'}, in the paper {expected}"
        yield f"other reference data: {had if never == expected else never}"
    for key, value in rule.get("requires", {}).items():
        if (used := _options(result).get(key)) != value:
            yield f"other protocol: {key} is {used}, in the paper {value}"


def _split_reasons(result: RunResult, number: PublishedNumber) -> Iterator[str]:
    """Whether the run or the paper used CoOp's splits and the other did not."""
    other = papers()["other_splits"]
    of_coop = other["option"].items() <= _options(result).items()
    if of_coop != (number.paper_method in other["methods"]):
        yield other["otherwise" if of_coop else "reason"]


def _counterparts(row: MethodRuns) -> list[PublishedNumber]:
    """The published numbers of a row's method and benchmark, whether comparable or not."""
    result = row.results[0]
    method = name_in_papers(result.method.name)
    rules = papers()["benchmarks"]
    found = [
        number
        for number in published_numbers()
        if number.metric in METRICS
        and plain(number.paper_method) == method
        and rules.get(number.benchmark, {}).get("benchmark") == result.benchmark.name
    ]
    same = [number for number in found if _same_order(result, number)]
    return same or found


def _same_order(result: RunResult, number: PublishedNumber) -> bool:
    order = result.benchmark.order.removesuffix(papers()["other_splits"]["order_ends"])
    return number.order in ("-", order)


def _measured(result: RunResult, number: PublishedNumber) -> float | None:
    """The run's value of a published metric, as a fraction; None where it has none."""
    if not number.task:
        return result.summary.get(number.metric)
    if number.task not in result.benchmark.tasks:
        return None
    j = result.benchmark.tasks.index(number.task)
    row_zero = result.matrix.values[0]
    values = {"zero_shot_acc": row_zero, **result.matrix.per_task()}.get(number.metric)
    return None if values is None or pd.isna(values[j]) else float(values[j])


def _tolerance(result: RunResult, number: PublishedNumber) -> float:
    rules = papers()
    frozen = result.footprint.trainable == 0 or number.metric == "zero_shot_acc"
    kind = "zero-shot" if frozen else rules["benchmarks"][number.benchmark]["tolerance"]
    allowed = rules["tolerances"][kind]
    return float(allowed.get(number.task, allowed["task"]) if number.task else allowed["mean"])


def _options(result: RunResult) -> Mapping[str, Any]:
    section = result.config.get("benchmark")
    return section.get("options", {}) if isinstance(section, dict) else {}


def _signed(value: float) -> str:
    return f"{value:+.1f}" if value else "0.0"
