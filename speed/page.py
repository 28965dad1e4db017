"""docs/speed.md, written from the measured files; none of its numbers is typed by hand."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from speed import decisions
from speed.tables import machine_line, table

Result = Mapping[str, Any]

HERE = Path(__file__).parent


def write_page(results: Path, page: Path) -> None:
    """Write the page from the files that are there, and those of a GPU in the folder beside."""
    found = _measured(results)
    on_gpu = _measured(results.with_name("speed-cuda"))
    makers: dict[str, Callable[[Result], str]] = {
        "gains": _gains,
        "keep": partial(_keep, gpu=on_gpu.get("keep")),
        "joined": _joined,
        "nusa": _nusa,
        "gnsp": _gnsp,
        "grams": _grams,
        "weights": _weights,
        "scoring": _scoring,
        "reading": _reading,
        "equality": _equality,
        "mini": _mini,
        "probes": _probes,
        "tasks": _tasks,
        "growth": _growth,
    }
    head, shortcuts = ((HERE / name).read_text("utf-8") for name in ("head.md", "shortcuts.md"))
    parts = [head, _targets(found), shortcuts]
    parts += [maker(found[name]) for name, maker in makers.items() if name in found]
    page.write_text("\n".join(part.rstrip() + "\n" for part in parts), encoding="utf-8")


def _measured(folder: Path) -> dict[str, Result]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}


def _targets(found: Mapping[str, Result]) -> str:
    """The table of what is asked for and what was measured."""
    rows: list[list[str]] = []
    for name, rate in TARGETS.items():
        if name in found:
            rows += rate(found[name])
    if not rows:
        return ""
    head = ["what", "asked for", "measured", ""]
    return "## Targets\n\n" + table(head, rows)


def _nusa_targets(result: Result) -> list[list[str]]:
    rows = []
    asked = {100: (1.9, 0.50), 200: (2.5, 0.38)}
    for row in result["rows"]:
        classes = row["classes"]
        speed, memory = asked.get(classes, (None, None))
        if row["plain_seconds"] and speed and memory:
            share = row["shipped_peak_bytes"] / row["plain_peak_bytes"]
            rows.append(_at_least(f"NuSA-CL step, fp32, K = {classes}", speed, row["ratio"]))
            rows.append(_at_most(f"NuSA-CL peak memory, K = {classes}", memory, share, " x"))
        if row["plain_seconds"] is None:
            gigabytes = row["shipped_peak_bytes"] / 1e9
            rows.append(_at_most(f"NuSA-CL step, K = {classes}: memory", 12, gigabytes, " GB"))
        if classes == 100:
            rows.append(_at_least("NuSA-CL step, share of the matrix rate", 0.6, _share(row), ""))
            rows.append(
                _bf16("NuSA-CL step, bf16 over fp32", 1.8, result, row["shipped_seconds"], row)
            )
    return rows


def _gnsp_targets(result: Result) -> list[list[str]]:
    return [
        _at_least("GNSP step, task 2 on, fp32", 1.25, result["ratio"]),
        _bf16("GNSP step, task 2 on, bf16", 2.2, result, result["plain_seconds"], result),
    ]


def _equality_targets(result: Result) -> list[list[str]]:
    rows = []
    for name, label in (("nusa", "NuSA-CL"), ("gnsp", "GNSP")):
        if name in result:
            one = result[name]
            rows.append(_at_most(f"{label}: loss, {one['steps']} steps", 1e-4, one["loss"], ""))
            rows.append(
                _at_most(f"{label}: weights, {one['steps']} steps", 1e-5, one["weights"], "")
            )
    return rows


TARGETS: dict[str, Any] = {
    "nusa": _nusa_targets,
    "gnsp": _gnsp_targets,
    "grams": lambda r: [_at_least("GNSP: decomposition of its Gram matrices", 2.5, r["ratio"])],
    "reading": lambda r: [_at_least("cached test set against decoding it", 10, r["ratio"])],
    "equality": _equality_targets,
    "help": lambda r: [_at_most("clbench --help", 1.0, statistics.median(r["seconds"]), " s")],
}


def _at_least(what: str, asked: float, measured: float, unit: str = " x") -> list[str]:
    return [what, f"≥ {asked:g}{unit}", f"{measured:.3g}{unit}", _met(measured >= asked)]


def _at_most(what: str, asked: float, measured: float, unit: str) -> list[str]:
    return [what, f"≤ {asked:g}{unit}", f"{measured:.3g}{unit}", _met(measured <= asked)]


def _bf16(what: str, asked: float, result: Result, slow: Sequence[float], row: Result) -> list[str]:
    if not result["machine"]["bf16_units"] or not row["bf16_seconds"]:
        rates = result["machine"]["operations_per_second"]
        emulated = f"matrix products {rates['bf16'] / rates['fp32']:.2g} x those of fp32"
        return [what, f"≥ {asked:g} x", emulated, "does not apply: this CPU has no bf16 units"]
    ratio = statistics.median(slow) / statistics.median(row["bf16_seconds"])
    return _at_least(what, asked, ratio)


def _met(is_met: bool) -> str:
    return "met" if is_met else "**not met**"


def _share(row: Result) -> float:
    """Achieved share of the measured matrix rate."""
    return float(row["shipped_operations"] / min(row["shipped_seconds"]) / row["rate"])


def _gains(result: Result) -> str:
    rows = [
        [
            row["shortcut"],
            f"{row['ratio']:.2f}",
            f"{(row['without_peak_bytes'] - row['shipped_peak_bytes']) / 1e9:+.2f} GB",
        ]
        for row in result["rows"]
    ]
    return (
        "### What each gains alone\n\nA training step of NuSA-CL, "
        f"K = {result['classes']}, without one shortcut, over the step as shipped.\n\n"
        f"{table(['without', 'time, x', 'peak memory'], rows)}\n{machine_line(result)}"
    )


def _keep(result: Result, gpu: Result | None) -> str:
    machines = machine_line(result) + (f"\n{machine_line(gpu)}" if gpu else "")
    methods = " / ".join(method["method"] for method in result["methods"])
    return (
        "### Kept or deleted\n\nEach item replaced by its plain counterpart alone, the rest as "
        f"shipped: a training step without it over the step as shipped, {methods}, "
        f"K = {result['classes']}, batch {result['batch']}, rank {result['rank']}, fp32. Plain "
        "low-rank layers are four lines, `F.linear` of each factor and `F.dropout`, and the rest "
        "is left to autograd. NuSA-CL trains M alone, LoRA A and B. An item stays if without it a "
        f"step takes at least {decisions.ASKED:g} times the time or the peak memory, with either "
        f"method, on the CPU or on a GPU.\n\n"
        f"{table(decisions.HEAD, decisions.rows(result, gpu))}\n{machines}"
    )


_TOGETHER = ("apart", "together", "joined")


def _joined(result: Result) -> str:
    rows = [
        [
            str(row["tokens"]),
            str(row["width"]),
            *(f"{1e3 * statistics.median(row[f'{how}_seconds']):.1f} ms" for how in _TOGETHER),
            f"{row['ratio_together']:.2f}",
            f"{row['ratio_joined']:.2f}",
        ]
        for row in result["rows"]
    ]
    head = [
        "tokens",
        "width",
        "apart",
        "one node",
        "one product",
        "apart / node",
        "apart / product",
    ]
    return (
        "### Query, key and value of one input\n\nThey share one node of the autograd graph and "
        "one draw of their dropout masks, and sum their gradients in place. Beside that a batched "
        "product of stacked weights, which is not shipped. Forwards and backwards, for the images "
        "of the embedded model, and for prompts and images of ViT-B/16:\n\n"
        f"{table(head, rows)}\n{machine_line(result)}"
    )


def _nusa(result: Result) -> str:
    rows = []
    for row in result["rows"]:
        plain = row["plain_seconds"]
        floor = row["shipped_operations"] / row["rate"]
        rows.append(
            [
                str(row["classes"]),
                f"{statistics.median(plain):.1f} s" if plain else "does not fit",
                f"{statistics.median(row['shipped_seconds']):.1f} s",
                f"{row['ratio']:.2f}" if plain else "",
                f"{row['plain_peak_bytes'] / 1e9:.1f} GB" if plain else "",
                f"{row['shipped_peak_bytes'] / 1e9:.1f} GB",
                f"{row['plain_operations'] / 1e12:.2f}" if plain else "",
                f"{row['shipped_operations'] / 1e12:.2f}",
                f"{floor:.1f} s",
                f"{_share(row):.0%}",
            ]
        )
    head = ["classes", "plain", "shipped", "ratio", "plain peak", "shipped peak"]
    head += ["plain TFLOP", "shipped TFLOP", "floor", "share of rate"]
    return (
        f"## NuSA-CL: a training step\n\nBatch {result['batch']}, rank {result['rank']}, both "
        "encoders, dropout 0.25, fp32. The floor is the shipped operations over the rate of a "
        "large matrix product, measured just before; peaks are of a whole process "
        "that does nothing else.\n\n"
        f"{table(head, rows)}\n{machine_line(result)}"
    )


def _gnsp(result: Result) -> str:
    floor = result["shipped_operations"] / result["rate"]
    row = [
        f"{statistics.median(result['plain_seconds']):.1f} s",
        f"{statistics.median(result['shipped_seconds']):.1f} s",
        f"{result['ratio']:.2f}",
        f"{result['plain_peak_bytes'] / 1e9:.1f} GB",
        f"{result['shipped_peak_bytes'] / 1e9:.1f} GB",
        f"{floor:.1f} s",
        f"{_share(result):.0%}",
    ]
    head = ["plain", "shipped", "ratio", "plain peak", "shipped peak", "floor", "share of rate"]
    return (
        f"## GNSP: a training step from the second task on\n\nBatch {result['batch']}, "
        f"{result['reference']} reference pairs, {result['classes']} classes, distillation and "
        f"alignment, projected gradients, fp32.\n\n{table(head, [row])}\n{machine_line(result)}"
    )


def _grams(result: Result) -> str:
    matrices = ", ".join(f"{n} of width {width}" for width, n in result["matrices"].items())
    row = [
        f"{statistics.median(result['plain_seconds']):.1f} s",
        f"{statistics.median(result['eigh_float64_seconds']):.1f} s",
        f"{statistics.median(result['shipped_seconds']):.1f} s",
        f"{result['ratio']:.2f}",
        f"{result['largest_difference']:.1e}",
    ]
    head = ["SVD and projector", "eigh in float64", "shipped", "ratio", "difference to float64"]
    kept = result["kept_directions"]
    return (
        f"## GNSP: null spaces\n\nGram matrices of a random ViT-B/16 on random images: {matrices}; "
        f"{min(kept)} to {max(kept)} directions are kept. The difference is the norm of what the "
        "shipped directions miss of those of a float64 eigendecomposition.\n\n"
        f"{table(head, [row])}\n{machine_line(result)}"
    )


def _weights(result: Result) -> str:
    row = [
        str(result["weights"]),
        f"{statistics.median(result['plain_seconds']):.1f} s",
        f"{statistics.median(result['shipped_seconds']):.1f} s",
        f"{result['ratio']:.2f}",
    ]
    return (
        "## NuSA-CL and MiLoRA: SVDs at the start of a task\n\n"
        f"{table(['weights', 'one by one', 'shipped', 'ratio'], [row])}\n{machine_line(result)}"
    )


def _scoring(result: Result) -> str:
    row = [
        f"{statistics.median(result['plain_seconds']):.1f} s",
        f"{statistics.median(result['shipped_seconds']):.1f} s",
        f"{result['ratio']:.2f}",
        f"{result['shipped_images_per_second']:.1f}",
    ]
    return (
        f"## Testing\n\n{result['images']} images among {result['classes']} classes, text features "
        "included.\n\n"
        f"{table(['plain', 'shipped', 'ratio', 'images/s'], [row])}\n{machine_line(result)}"
    )


def _reading(result: Result) -> str:
    row = [
        f"{result['decoded_images_per_second']:.0f}",
        f"{result['cached_images_per_second']:.0f}",
        f"{result['ratio']:.1f}",
    ]
    return (
        f"## Reading test images\n\n{result['images']} JPEGs of 500 x 375 pixels, resized and "
        "cropped to 224; images per second.\n\n"
        f"{table(['decoding', 'decoded cache', 'ratio'], [row])}\n{machine_line(result)}"
    )


def _equality(result: Result) -> str:
    rows = [
        [label, str(one["steps"]), f"{one['loss']:.1e}", f"{one['weights']:.1e}"]
        for name, label in (("nusa", "NuSA-CL"), ("gnsp", "GNSP"))
        if (one := result.get(name))
    ]
    return (
        "## Both formulations give the same\n\nLargest difference of losses and of trained weights "
        "after some steps of AdamW side by side, fp32, without dropout.\n\n"
        + table(["method", "steps", "loss", "weights"], rows)
    )


def _mini(result: Result) -> str:
    sums = [_sums(part) for part in result["parts"]]
    rows = []
    for part, seconds in zip(result["parts"], sums, strict=True):
        each = f"{1e3 * statistics.median(part['seconds']):.0f} ms"
        operators = str(part.get("operators", ""))
        rows.append([part["part"], str(part["count"]), operators, each, *_in_seconds(seconds)])
    totals = [sum(column) for column in zip(*sums, strict=True)]
    rows.append(["together", "", "", "", *_in_seconds(totals)])
    head = ["part", "times", "operators", "one", "all", "operators alone", "operations"]
    runs = ", ".join(f"{seconds:.0f} s" for seconds in result["seconds"])
    return (
        "## The embedded benchmark\n\n`clbench run --method nusa --benchmark mini`, from the "
        f"start to the last table, run after run: {runs}. Its parts, and two floors of each: the "
        "operators of PyTorch that it comes down to, called one after the other, without modules "
        "and graph; and its floating-point operations at the rate of a large matrix product, for "
        "which those of a model of width 128 are too small.\n\n"
        f"{table(head, rows)}\n{machine_line(result)}"
    )


def _probes(result: Result) -> str:
    rows = [
        [name, f"{statistics.median(seconds):.1f} s", f"{result['ratios'][name]:.2f}"]
        for name, seconds in result["seconds"].items()
    ]
    return (
        "## Probes\n\nWhat a row of the embedded benchmark costs: the test that every row has, of "
        f"{result['images']} images, and beside it each [probe](probes.md) alone, what it does "
        "before the task included. Together they cost less, because they share features.\n\n"
        f"{table(['', 'a row', 'over the test'], rows)}\n{machine_line(result)}"
    )


def _sums(part: Result) -> list[float]:
    """All calls of a part of the embedded run, measured and by its two floors, in seconds."""
    once = statistics.median(part["seconds"])
    # Nothing below the time of loading is known.
    alone = statistics.median(part.get("operator_seconds", [once]))
    return [part["count"] * each for each in (once, alone, part.get("floor_seconds", once))]


def _in_seconds(numbers: Sequence[float]) -> list[str]:
    return [f"{seconds:.1f} s" for seconds in numbers]


def _tasks(result: Result) -> str:
    head = ["tasks", "a task", "over the control, first half", "second half"]
    head += ["state after 1", "state after all", "peak, last over second"]
    return (
        "## How cost grows with tasks\n\nNuSA-CL on the embedded CLIP. The control learns its "
        "first task once more before each, always from the same weights, so that the pace of the "
        "machine leaves the ratio.\n\n"
        f"{table(head, [_task_row(row) for row in result['rows']])}\n{machine_line(result)}"
    )


def _growth(result: Result) -> str:
    parts = ["## How cost grows with classes, rank and model\n"]
    for key, label in (("classes", "Classes"), ("ranks", "Rank")):
        name = "classes" if key == "classes" else "rank"
        rows = [
            [
                str(row[name]),
                f"{statistics.median(row['seconds']):.1f} s",
                f"{row['peak_bytes'] / 1e9:.2f} GB",
            ]
            for row in result[key]
        ]
        parts.append(f"**{label}** (a step of NuSA-CL, ViT-B/16, fp32).\n")
        parts.append(table([name, "step", "peak"], rows))
    rows = [
        [
            row["model"].removesuffix("-quickgelu"),
            str(row["weights"]),
            ", ".join(map(str, row["widths"])),
            f"{statistics.median(row['plain_seconds']):.1f} s",
            f"{statistics.median(row['shipped_seconds']):.1f} s",
        ]
        for row in result["models"]
    ]
    parts.append("**Model** (all SVDs at the start of a task of NuSA-CL).\n")
    parts.append(table(["model", "weights", "widths", "one by one", "shipped"], rows))
    return "\n".join([*parts, machine_line(result)])


def _task_row(row: Result) -> list[str]:
    half = row["tasks"] // 2
    seconds, control = row["seconds"][1:], row["control_seconds"][1:]  # the first task warms up
    ratios = [a / b for a, b in zip(seconds, control, strict=True)]
    return [
        str(row["tasks"]),
        f"{1000 * statistics.median(seconds):.0f} ms",
        f"{statistics.median(ratios[:half]):.2f}",
        f"{statistics.median(ratios[-half:]):.2f}",
        f"{row['state_bytes'][0] / 1e6:.2f} MB",
        f"{row['state_bytes'][-1] / 1e6:.2f} MB",
        f"{row['peak_bytes'][-1] / row['peak_bytes'][1]:.3f}",
    ]
