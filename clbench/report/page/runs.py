"""The part of the page on single runs: accuracy matrices and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from clbench.core.results.result import RunResult
from clbench.report.figures.chosen import BASELINES
from clbench.report.figures.matrices import COLOUR_MAP, text_colour
from clbench.report.tables.grid import percent
from clbench.report.tables.groups import ComparableGroup, method_runs

OTHERS = "Other methods"
_LOOKS = 60
_SHADES = 64
"""Colours between the lowest and the highest accuracy of a group."""


def matrices(group: ComparableGroup) -> dict[str, Any]:
    """The matrices of a group as plain JSON values: per row label, the mean and every seed.

    `rows` has the labels in the order that the numbers of series in figures follow.

    Accuracies are numbers in percent with one decimal, as in the other formats.
    """
    known = [v for r in group.results for row in r.accuracy.values for v in row if v is not None]
    return {
        "tasks": list(group.results[0].benchmark.tasks),
        "low": 100 * min(known, default=0.0),
        "high": 100 * max(known, default=1.0),
        "methods": {row.label: _views(row.results) for row in method_runs(group.results)},
        "rows": [
            {"label": row.label, "method": row.results[0].method.name}
            for row in method_runs(group.results)
        ],
    }


def palette() -> dict[str, list[str]]:
    """Background and text colours of matrix cells, from low to high."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    positions = [i / (_SHADES - 1) for i in range(_SHADES)]
    return {
        "background": [to_hex(colormaps[COLOUR_MAP](p)) for p in positions],
        "text": [text_colour(p) for p in positions],
    }


def line_looks() -> dict[str, list[str]]:
    """Colours and dashes of curves, in the order in which chosen methods get them."""
    from clbench.report.figures.style import line_styles

    styles = line_styles(_LOOKS)
    dashes = [() if isinstance(style.dash, str) else style.dash[1] for style in styles]
    return {
        "colours": [style.colour for style in styles],
        "dashes": [" ".join(f"{1.1 * part:g}" for part in dash) or "none" for dash in dashes],
    }


def families(groups: Sequence[ComparableGroup]) -> dict[str, dict[str, str]]:
    """Methods by family: name to title. Families come in the order of their first method."""
    methods = {r.method.name: r.method for group in groups for r in group.results}
    found: dict[str, dict[str, str]] = {}
    for name in sorted(methods, key=lambda name: (methods[name].family == "", name)):
        found.setdefault(methods[name].family or OTHERS, {})[name] = methods[name].title
    first = {BASELINES: found.pop(BASELINES)} if BASELINES in found else {}
    return {**first, **found}


def script_json(value: Any) -> str:
    r"""JSON for use inside a script element, which no value can close.

    >>> script_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def provenance(group: ComparableGroup) -> list[dict[str, Any]]:
    """One entry per run: a heading, the most important facts, and everything as YAML."""
    return [
        _provenance(row.label, result)
        for row in method_runs(group.results)
        for result in row.results
    ]


def _views(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    values = [result.matrix.values for result in results]
    views = [
        {"name": f"seed {result.seed}", "rows": _rows(matrix)}
        for result, matrix in zip(results, values, strict=True)
    ]
    if len(results) > 1:
        mean = np.mean(values, axis=0)
        views.insert(0, {"name": f"mean of {len(results)} seeds", "rows": _rows(mean)})
    return views


def _rows(values: Any) -> list[list[float | None]]:
    return [[None if np.isnan(v) else float(percent(v)) for v in row] for row in values]


def _provenance(label: str, result: RunResult) -> dict[str, Any]:
    origin = result.provenance
    cost = result.cost
    facts = {
        "Status": result.status,
        "Settings": result.config_hash,
        "Backbone": f"{result.backbone.model} ({result.backbone.weights})",
        "Weights": result.backbone.fingerprint,
        "Started": origin.get("started"),
        "Ended": origin.get("ended"),
        "Device": origin.get("device"),
        "Processor": origin.get("processor"),
        "Source": _revision(origin.get("git")),
        "Steps": cost.steps,
        "Paper": result.method.paper,
    }
    dumped = result.model_dump(mode="json")
    sections = {
        "Configuration": dumped["config"],
        "Versions and hardware": dumped["provenance"],
        "Data hashes": dumped["data"],
        "Footprint and costs": {"footprint": dumped["footprint"], "cost": dumped["cost"]},
    }
    return {
        "label": label,
        "seed": result.seed,
        "facts": {key: str(value) for key, value in facts.items() if value not in (None, "")},
        "sections": {title: _yaml(content) for title, content in sections.items()},
    }


def _revision(git: Any) -> str | None:
    if not isinstance(git, Mapping) or "commit" not in git:
        return None
    return f"{git['commit']}{', with changes' if git.get('dirty') else ''}"


def _yaml(content: Any) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    return text.strip()
