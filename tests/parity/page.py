"""The tables of docs/parity.md, from the files in reports/parity."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from clbench import registry
from clbench.cli.method_index import MethodPage
from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.core.results.matrix import AccuracyMatrix
from tests.golden.golden import FOLDER as GOLDEN
from tests.parity.matrices import BOUND, FOLDER, ROOT, Matrices, read_all

PAGE = ROOT / "docs" / "parity.md"
MEASURED = FOLDER / "golden.json"
METRICS = ("transfer", "average", "last", "forgetting")
PARTS = {"wise_original": "wise_ft"}
"""Golden files that only a shared part is held against, and the method that they are about."""
UNOFFICIAL = "not official"
"""Stands in the metadata of golden files that no released code computed."""


def renewed(page: Path = PAGE) -> str:
    """The text of the page with its tables as the committed files have them.

    Raises:
        ClbenchError: the page has no place for a table.
    """
    text = page.read_text("utf-8")
    for mark, make in TABLES.items():
        block = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
        table = make()
        text, count = block.subn(lambda found, t=table: f"{found[1]}\n{t}\n{found[2]}", text)
        if count != 1:
            raise ClbenchError(f"{page} needs one place for the table '{mark}'")
    return text


def write(page: Path = PAGE) -> None:
    """Renew the tables of the page."""
    write_atomic(page, renewed(page))


def _bound() -> str:
    rows = [_bound_row(one) for one in read_all()]
    head = (
        "method",
        "seeds, release",
        "seeds, clbench",
        "two seeds of the release",
        "two seeds of clbench",
        "one of each",
        "ratio",
        f"at most {BOUND}",
        "splits as far apart",
        "mean offset",
        "largest offset of a cell",
    )
    return _table(head, rows)


def _bound_row(one: Matrices) -> list[str]:
    counts = [f"`{one.method}`", str(len(one.released)), str(len(one.own))]
    if not one.comparable:
        return [*counts, "", "", "", "", "not measured", "", "", ""]
    gap, after, tested = one.largest()
    return [
        *counts,
        f"{one.seeds_released:.2f}",
        f"{one.seeds_own:.2f}",
        f"{one.between:.2f}",
        f"{one.ratio:.2f}",
        "met" if one.met else "**not met**",
        "{} of {}".format(*one.splits()),
        f"{one.offset():+.2f}",
        f"{gap:+.1f} ({tested} after {after})",
    ]


def _metrics() -> str:
    rows = []
    for one in read_all():
        for name, matrices in (("release", one.released), ("clbench", one.own)):
            cells = [_spread(matrices, metric) for metric in METRICS] if matrices else [""] * 4
            rows.append([f"`{one.method}`", name, *cells])
    return _table(("method", "code", "Transfer", "Avg", "Last", "Forgetting"), rows)


def _spread(matrices: Sequence[AccuracyMatrix], metric: str) -> str:
    values = [100 * (matrix.summary()[metric] or 0.0) for matrix in matrices]
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def _runs() -> str:
    """Which runs of clbench the matrices are of."""
    rows = [
        [
            f"`{one.method}`",
            str(result.seed),
            result.config_hash,
            (result.provenance.get("git") or {}).get("commit", "")[:10],
            str(result.provenance.get("started", ""))[:10],
        ]
        for one in read_all()
        for result in one.results
    ]
    return _table(("method", "seed", "settings", "commit", "run on"), rows)


def measured() -> dict[str, list[dict[str, Any]]]:
    """What was measured on golden tensors of released code, by method, in the registry's order."""
    quantities = json.loads(MEASURED.read_text("utf-8"))["quantities"]
    unofficial = _unofficial()
    official = [q for q in quantities if not unofficial.intersection(q["golden"])]
    found: dict[str, list[dict[str, Any]]] = {}
    for method in registry.methods():
        test = f"tests/methods/test_{method}.py"
        files = {name for q in official if q["test"] == test for name in q["golden"]}
        files |= {name for name, of in PARTS.items() if of == method}
        rows = [q for q in official if q["test"] == test]
        # Tests of shared parts count for every method that the same file is about.
        shared = [q for q in official if not q["test"].startswith("tests/methods/")]
        rows += [q for q in shared if files.intersection(q["golden"])]
        if rows:
            found[method] = rows
    return found


def _unofficial() -> set[str]:
    names = set()
    for path in GOLDEN.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            if UNOFFICIAL in file.metadata().get("method", ""):
                names.add(path.stem)
    return names


def _golden() -> str:
    head = (
        "method",
        "golden files",
        "tensors compared",
        "numbers",
        "largest difference",
        "relative to its tensor",
        "loosest tolerance",
        "nearest to its tolerance",
    )
    return _table(head, [_golden_row(name, rows) for name, rows in measured().items()])


def _golden_row(method: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    files = sorted({name for row in rows for name in row["golden"]})
    nearest = max(rows, key=lambda row: row["share"])
    return [
        f"[`{method}`](methods/{method}.md)",
        ", ".join(f"`{name}`" for name in files),
        str(sum(row["comparisons"] for row in rows)),
        f"{sum(row['elements'] for row in rows):,}",
        _number(max(row["difference"] for row in rows)),
        _number(max(row["relative"] for row in rows)),
        _tolerance(max(rows, key=lambda row: (row["atol"], row["rtol"]))),
        f"{nearest['share']:.0%} (`{nearest['quantity']}`)" if nearest["share"] else "",
    ]


def _number(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _tolerance(row: dict[str, Any]) -> str:
    parts = [_number(row["atol"])] if row["atol"] else []
    parts += [f"{_number(row['rtol'])} relative"] if row["rtol"] else []
    return " + ".join(parts) or "0"


def _missing() -> str:
    folder = ROOT / "docs" / "methods"
    missing = [name for name in registry.methods() if name not in measured()]
    rows = [
        [
            f"[`{name}`](methods/{name}.md)",
            MethodPage(folder / f"{name}.md").paragraph("Parity").replace("](", "](methods/"),
        ]
        for name in missing
    ]
    return _table(("method", "why, and what holds it instead"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "bound": _bound,
    "metrics": _metrics,
    "runs": _runs,
    "golden": _golden,
    "missing": _missing,
}
"""Tables by the name of their place in the page."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
