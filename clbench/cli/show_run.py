"""What `clbench show RUN` prints: where a result comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clbench.core.foreign.names import printable
from clbench.core.redaction import redact
from clbench.core.results.result import FILE_NAME, RunResult


def is_run(name: str) -> bool:
    """Whether a name is that of a run directory or a result file."""
    path = Path(name)
    return (path / FILE_NAME).is_file() or (path.suffix == ".json" and path.is_file())


def describe_run(path: Path) -> RenderableType:
    """The provenance of a run.

    Raises:
        ClbenchError: the result is damaged or edited.
    """
    result = RunResult.load(path)
    parts = [_table("run", _identity(result)), _table("configuration", _flat(result.config))]
    data: dict[str, str | None] = {
        f"{name} (split)": digest for name, digest in result.data.splits.items()
    }
    data |= {f"{name} (prompts)": digest for name, digest in result.data.prompts.items()}
    data["reference images"] = result.data.reference
    data |= {f"reference {k} (hash)": digest for k, digest in result.data.reference_hashes.items()}
    parts.append(_table("data", data))
    provenance = dict(result.provenance)
    packages = provenance.pop("packages", {})
    parts.append(_table("machine and code", _flat(provenance)))
    parts.append(_table("packages", packages))
    return Group(*parts)


def _identity(result: RunResult) -> dict[str, Any]:
    cost = result.cost
    benchmark = f"{result.benchmark.name} v{result.benchmark.version}, {result.benchmark.setting}"
    return {
        "method": result.method.name,
        "benchmark": f"{benchmark}, order {result.benchmark.order}",
        "seed": result.seed,
        "status": f"{result.status}, {result.matrix.learned} of {len(result.matrix.tasks)} tasks",
        "configuration hash": result.config_hash,
        "backbone": f"{result.backbone.model}, {result.backbone.weights}",
        "hash of its weights": result.backbone.fingerprint,
        **{
            name: None if value is None else f"{100 * value:.2f} %"
            for name, value in result.summary.items()
        },
        "training": f"{cost.training_seconds:.1f} s, {cost.steps} steps",
        "evaluation": f"{cost.evaluation_seconds:.1f} s",
        "schema": result.schema_version,
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys instead of nested mappings."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.") if value else {f"{prefix}{key}": "-"}
        elif isinstance(value, list):
            flat[f"{prefix}{key}"] = ", ".join(map(str, value)) or "-"
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _table(title: str, values: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        # As text: what stands in a file must not be read as markup.
        shown = "-" if value is None else redact(str(value))
        table.add_row(Text(printable(key)), Text(printable(shown)))
    return table
