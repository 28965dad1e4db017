"""docs/costs.md, written from the measured files; none of its numbers is typed by hand."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from speed.published import PUBLISHED, Published
from speed.tables import machine_line, table

Result = Mapping[str, Any]

HEAD: Final = Path(__file__).parent / "costs.md"
FINE_TUNED: Final = 64 * 1000
"""Images of a task of fine-tuning on MTIL."""


def write_costs_page(results: Path, page: Path, methods: Iterable[str]) -> None:
    """Write the page from the files that are there.

    Args:
        results: folder of ``METHOD.json``.
        page: the file.
        methods: names of all methods, in order.
    """
    names = [*methods]
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in results.glob("*.json")}
    rows = [found[name] for name in names if name in found]
    parts = [HEAD.read_text("utf-8"), _time(rows), _sizes(rows), _published(found)]
    if missing := [f"`{name}`" for name in names if name not in found]:
        parts.append(f"Not measured yet: {', '.join(missing)}. The program goes on with them.\n")
    page.write_text("\n".join(part.rstrip() + "\n" for part in parts), encoding="utf-8")


def _time(rows: Sequence[Result]) -> str:
    head = ["method", "step, x", "from, to", "recipe", "task, x", "begin", "end", "passes"]
    head += ["peak", "between"]
    scales = sorted({_scale(row) for row in rows})
    return (
        "## Time and memory\n\n"
        f"Measured with {' or '.join(scales)}.\n\n"
        "- **step**: over a step of fine-tuning with as many images, medians; beside it the least "
        "and the largest that neighbouring steps give.\n"
        "- **recipe**: steps and images per step of a task, or passes over its images. **task**: "
        "its steps over the 1000 of 64 images of fine-tuning, if an image takes as long as "
        "measured.\n"
        "- **begin**, **end**: what stands before the first and after the last step of the second "
        "task, in steps of fine-tuning of the size measured. Beside the steps of 64 images of a "
        "real task, what does not depend on images, such as SVDs of weights, is so much less as "
        "steps are larger. **passes**: how often both go over all images of the task, which is "
        "part of them.\n"
        "- **peak**: the most memory in two steps, with the model, without libraries; **between**: "
        "from the first task to the start of the second.\n\n"
        f"{table(head, [_time_row(row) for row in rows])}\n"
        + "\n".join(sorted({_machine(row) for row in rows}))
    )


def _scale(row: Result) -> str:
    key = row["key"]
    return (
        f"{key['model'].removesuffix('-quickgelu')}, {key['batch']} images a step, "
        f"{key['classes']} classes and {row['images']} images a task"
    )


def _machine(row: Result) -> str:
    """On what, on which day."""
    return machine_line({**row, "measured": row["measured"].partition(" ")[0]})


def _time_row(row: Result) -> list[str]:
    step = statistics.median(row["reference_seconds"])
    begin, end = (f"{row[f'{which}_seconds'] / step:.2f}" for which in ("begin", "end"))
    passes = f"{row['begin_passes']:g} + {row['end_passes']:g}"
    between = f"{row['between_peak_bytes'] / 1e9:.2f} GB"
    if "seconds" not in row:
        return [_link(row), "no steps", "", "", "", begin, end, passes, "", between]
    own, recipe = row["seconds"], row["recipe"]
    ratio, batch = statistics.median(own) / step, recipe["batch_size"]
    pairs = [own[i + j] / one for i, one in enumerate(row["reference_seconds"]) for j in (0, 1)]
    if recipe["epochs"]:
        amount, task = f"{recipe['epochs']:g} passes of {batch}", ""
    else:
        amount = f"{recipe['steps']} x {batch}"
        task = f"{ratio * recipe['steps'] * batch / FINE_TUNED:.2f}"
    spread = f"{min(pairs):.2f}, {max(pairs):.2f}"
    peak = f"{row['step_peak_bytes'] / 1e9:.2f} GB"
    cells = [f"{ratio:.2f}", spread, amount, task, begin, end, passes, peak, between]
    return [_link(row), *cells]


def _sizes(rows: Sequence[Result]) -> str:
    return (
        "## What methods train and keep\n\n"
        "**trained**: parameters that the optimizer holds in a task; **later**: in the second, "
        "where that differs. **kept**: what a checkpoint holds after the first task besides the "
        "model; **next**: what the second adds. What grows with images or classes is small here; "
        "**images at most**: those that the recipe keeps when its memory is full.\n\n"
        + table(
            ["method", "trained", "later", "kept", "next", "images at most"],
            [_size_row(row) for row in rows],
        )
    )


def _size_row(row: Result) -> list[str]:
    first, second = row["tasks"]
    more = second["stored_bytes"] - first["stored_bytes"]
    later = second["trained"] if second["trained"] != first["trained"] else None
    capacity = row["recipe"]["capacity"]
    return [
        _link(row),
        _millions(first["trained"]),
        "" if later is None else _millions(later),
        f"{first['stored_bytes'] / 1e6:.1f} MB" if first["stored_bytes"] else "0",
        f"{more / 1e6:+.1f} MB" if more else "0",
        f"{capacity * row['image_bytes'] / 1e6:.0f} MB" if capacity else "",
    ]


def _published(found: Mapping[str, Result]) -> str:
    head = ["method", "published", "which is", "measured, a task", "what explains the difference"]
    rows = [
        _published_row(found[name], published)
        for name, published in PUBLISHED.items()
        if name in found
    ]
    return (
        "## Published numbers of trained parameters\n\n"
        "Each taken apart into what it is the sum of, by arithmetic from widths, ranks, blocks, "
        "tasks and classes. The first five are those of the NuSA-CL release, the others second "
        "hand; for MoE-Adapters and LADA it is not known here what was counted, "
        "and these parts are those that fit. In brackets: measured with other settings than the "
        "recipe's, those of the published number.\n\n" + table(head, rows)
    )


def _published_row(row: Result, published: Published) -> list[str]:
    parts = [f"{what}: {_millions(count)}" for what, count in published.parts.items()]
    total = f" = {_millions(published.total)}" if len(parts) > 1 else ""
    first = _millions(row["tasks"][0]["trained"])
    if "trained_as_published" in row:
        settings = ", ".join(f"`{name}={value}`" for name, value in published.params.items())
        first += f" ({settings}: {_millions(row['trained_as_published'])})"
    return [
        _link(row),
        f"{published.millions:.1f} M",
        " + ".join(parts) + total,
        first,
        published.difference,
    ]


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count else "0"


def _link(row: Result) -> str:
    name = row["method"]
    return f"[`{name}`](methods/{name}.md)"
