"""The tables of a search: what was tried, what was chosen, what else could have been."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from clbench.report.formats.cells import Cell, Grid
from clbench.report.search.measures import DIVERGED, REFERENCE, area, expected_best
from clbench.report.search.read import MethodSearch, SearchRecord, Summary, mean_of
from clbench.report.tables.documents import TableDocument
from clbench.report.tables.grid import percent

BUDGETS: Final = (1, 4, 8, 16)
"""After how many settings the expected best is shown."""
ZERO_SHOT: Final = "zero-shot (before training)"
TITLES: Final = {"transfer": "Transfer", "average": "Avg", "last": "Last"}
_METRICS: Final = (*TITLES, "learned", "forgetting")
_MISSING: Final = Cell("")


def search_documents(record: SearchRecord) -> list[TableDocument]:
    """The tables in the order they are read; the first holds the numbers of the CSV file."""
    about = f"{record.benchmark}, {record.budget} settings per method"
    return [
        TableDocument(
            "summary",
            f"Chosen by {_title(record.criterion)}: {about}",
            _chosen_grid(record),
            search_frame(record),
            _warnings(record),
            [
                "Percent, mean ± sample standard deviation over n seeds. "
                f"{_title(record.criterion)} decided, as fixed before the first trial; the other "
                "metrics are those of the chosen setting. Diverged trials count as tried.",
                f"All trials share {_settings(record.settings)}." if record.settings else "",
            ],
        ),
        _document(
            "ranges",
            f"What was tried: {about}",
            _range_grid(record),
            "* extended because the best lay at an end. Inside: whether values on both sides of "
            "the chosen one were tried, or why not. A range is extended after eight settings, and "
            "after every four more, as long as the budget lasts.",
        ),
        _document(
            "criteria",
            f"Other criteria: {about}",
            _criteria_grid(record),
            "Percent. What each criterion would have chosen among all trials, which have one seed; "
            f"= is the setting that {_title(record.criterion)} chose after repetitions.",
        ),
        _document(
            "budget", f"Budget and front: {about}", _budget_grid(record), *_budget_notes(record)
        ),
    ]


def search_frame(record: SearchRecord) -> pd.DataFrame:
    """All numbers as fractions, a row per method.

    Returns:
        Index: the methods, after zero-shot where it was measured. Columns: `trials`, `diverged`,
        `chosen` (values of the chosen setting), `n` (its seeds), the metrics of the chosen setting
        with their sample standard deviations, `declared`, `searched`, `extended` and `edges` (by
        dimension), `<criterion>_chooses` with `<criterion>_value` for other criteria,
        `expected_best_<n>`, `area` and `problem`.
    """
    rows: dict[str, dict[str, object]] = {}
    if record.zero_shot:
        rows[ZERO_SHOT] = {key: _number(record.zero_shot.get(key)) for key in _METRICS}
    rows |= {method.name: _frame_row(record, method) for method in record.methods}
    columns = list(dict.fromkeys(key for row in reversed(rows.values()) for key in row))
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    frame.index.name = "method"
    return frame


def points(record: SearchRecord, method: MethodSearch) -> list[tuple[float, float]]:
    """Transfer (or Avg) and Last of the settings that did not diverge."""
    pairs = [(t.summary.get(record.against), t.summary.get("last")) for t in method.trials]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def criteria(record: SearchRecord) -> dict[str, tuple[str, ...]]:
    """Other criteria: the metrics whose mean is taken, by name."""
    if record.against == "transfer":
        found = {
            "transfer+last": ("transfer", "last"),
            "last": ("last",),
            "transfer": ("transfer",),
        }
    else:
        found = {"average": ("average",), "last": ("last",)}
    return {name: keys for name, keys in found.items() if keys != (record.criterion,)}


def _document(stem: str, title: str, grid: Grid, *notes: str) -> TableDocument:
    """A table whose numbers are in the CSV file of the first one."""
    return TableDocument(stem, title, grid, pd.DataFrame(), notes=notes)


def _frame_row(record: SearchRecord, method: MethodSearch) -> dict[str, object]:
    row: dict[str, object] = {
        "trials": len(method.trials),
        "diverged": method.diverged,
        "chosen": "" if method.chosen is None else method.trials[method.chosen].text,
        "n": len(method.chosen_runs),
    }
    for key in _METRICS:
        row[key], row[f"{key}_std"] = _mean_spread(method.chosen_runs, key)
    row |= {
        "declared": _by_dimension(method.declared),
        "searched": _by_dimension(method.searched),
        "extended": "; ".join(method.extended),
        "edges": _by_dimension({key: why for key, why in method.edges.items() if why}),
    }
    for name, keys in criteria(record).items():
        best = method.best(*keys)
        trial = None if best is None else method.trials[best]
        row[f"{name}_chooses"] = "" if trial is None else trial.text
        row[f"{name}_value"] = _number(None if trial is None else mean_of(trial.summary, keys))
    row |= {f"expected_best_{n}": _number(_expected(method, n)) for n in BUDGETS}
    return row | {"area": area(points(record, method)), "problem": method.problem}


def _chosen_grid(record: SearchRecord) -> Grid:
    header = ("Method", "Trials", "Diverged", "Chosen", "n", *map(_title, _METRICS), "Inside")
    rows = []
    if record.zero_shot:
        shown = (_percent(record.zero_shot.get(key)) for key in _METRICS)
        rows.append((Cell(ZERO_SHOT), *[_MISSING] * 4, *shown, _MISSING))
    for method in record.methods:
        metrics = []
        for key in _METRICS:
            mean, spread = _mean_spread(method.chosen_runs, key)
            text = "" if math.isnan(mean) else percent(mean)
            metrics.append(Cell(text if math.isnan(spread) else f"{text} ± {percent(spread)}"))
        inside = "" if not method.edges else "no" if any(method.edges.values()) else "yes"
        rows.append(
            (
                *map(Cell, (method.title, str(len(method.trials)), str(method.diverged))),
                Cell(_chosen_text(method)),
                Cell(str(len(method.chosen_runs) or "")),
                *metrics,
                Cell(inside),
            )
        )
    numeric = (False, True, True, False, *[True] * (1 + len(_METRICS)), False)
    return Grid(header, tuple(rows), numeric)


def _range_grid(record: SearchRecord) -> Grid:
    rows: list[tuple[Cell, ...]] = []
    rules: set[int] = set()
    for method in record.methods:
        rules.add(len(rows))
        chosen = {} if method.chosen is None else method.trials[method.chosen].values
        for key in method.searched or {"": ""}:
            star = "*" if key in method.extended else ""
            texts = (
                method.title if len(rows) in rules else "",
                key,
                method.declared.get(key, ""),
                f"{method.searched.get(key, 'nothing')}{star}",
                f"{chosen[key]:g}"
                if isinstance(chosen.get(key), float)
                else str(chosen.get(key, "")),
                "" if key not in method.edges else method.edges[key] or "yes",
            )
            rows.append(tuple(map(Cell, texts)))
    header = ("Method", "Dimension", "Declared", "Searched", "Chosen", "Inside")
    return Grid(header, tuple(rows), (False,) * len(header), frozenset(rules - {0}))


def _criteria_grid(record: SearchRecord) -> Grid:
    shown = [key for key in (record.against, "average", "last") if key in TITLES]
    shown = list(dict.fromkeys(shown))
    rows: list[tuple[Cell, ...]] = []
    rules: set[int] = set()
    for method in record.methods:
        rules.add(len(rows))
        for name, keys in criteria(record).items():
            best = method.best(*keys)
            if best is None:
                continue
            trial = method.trials[best]
            first = method.title if len(rows) in rules else ""
            choice = "=" if best == method.chosen else trial.text
            values = [_percent(trial.summary.get(key)) for key in shown]
            mean = _percent(mean_of(trial.summary, keys))
            rows.append((Cell(first), Cell(_title(name)), Cell(choice), mean, *values))
    header = ("Method", "Criterion", "Would choose", "Value", *map(_title, shown))
    numeric = (False, False, False, *[True] * (1 + len(shown)))
    return Grid(header, tuple(rows), numeric, frozenset(rules - {0}))


def _budget_grid(record: SearchRecord) -> Grid:
    rows = [
        (
            Cell(method.title),
            *(_percent(_expected(method, n)) for n in BUDGETS),
            _percent(area(points(record, method))),
        )
        for method in record.methods
    ]
    header = ("Method", *(f"Best of {n}" for n in BUDGETS), "Area")
    return Grid(header, tuple(rows), (False, *[True] * (len(header) - 1)))


def _budget_notes(record: SearchRecord) -> list[str]:
    against = _title(record.against)
    return [
        f"Best of n: the {_title(record.criterion)} in percent that the best of n settings is "
        "expected to have, drawn with replacement from those that were tried (Dodge et al. 2019); "
        f"a diverged one counts as {percent(DIVERGED)}. Empty where fewer were tried; a method "
        "with nothing to search has the same value for all n.",
        f"Area: under the {against}-Last front of all settings, above the reference point "
        f"({REFERENCE[0]:g}, {REFERENCE[1]:g}), in percent of the square of all accuracies: what "
        f"share of all pairs of {against} and Last some setting reaches in both.",
        "Both are of one seed.",
    ]


def _warnings(record: SearchRecord) -> list[str]:
    found = ["These were smoke runs: their numbers mean nothing."] if record.quick else []
    return found + [f"{m.title}: {m.problem}." for m in record.methods if m.problem]


def _expected(method: MethodSearch, n: int) -> float | None:
    tried = len(method.trials)
    if tried == 0 or (n > tried and method.searched):
        return None
    return expected_best([trial.score for trial in method.trials], n)


def _chosen_text(method: MethodSearch) -> str:
    if method.chosen is None:
        return "all diverged" if method.trials else ""
    return method.trials[method.chosen].text or "nothing to search"


def _mean_spread(runs: Sequence[Summary], key: str) -> tuple[float, float]:
    values = [_number(run.get(key)) for run in runs]
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def _by_dimension(texts: Mapping[str, str]) -> str:
    return "; ".join(f"{key}: {text}" for key, text in texts.items())


def _settings(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _title(key: str) -> str:
    """A metric, or several joined by a plus, as it is called in tables."""
    parts = [TITLES.get(part, part.capitalize()) for part in key.split("+")]
    return parts[0] if len(parts) == 1 else f"mean of {' and '.join(parts)}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _percent(value: float | None) -> Cell:
    return _MISSING if value is None or math.isnan(value) else Cell(percent(value))
