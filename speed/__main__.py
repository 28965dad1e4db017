"""`python -m speed`: measure, write reports/speed/, and docs/speed.md and docs/costs.md."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from rich.console import Console

from speed import costs, machine
from speed.costs_page import write_costs_page
from speed.page import write_page
from speed.sections import SECTIONS, Plan, stamp

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "reports" / "speed"
PAGE = ROOT / "docs" / "speed.md"
COSTS_PAGE = ROOT / "docs" / "costs.md"
COSTS = "costs"
"""The section that measures every method, into files of its own."""
NAMES = [*SECTIONS, COSTS]
METHODS = sorted(path.stem for path in (ROOT / "methods").glob("[!_]*.py"))


def main(
    only: Annotated[
        str, typer.Option(help=f"Sections with commas between: {', '.join(NAMES)}.")
    ] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Calls per formulation.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads; 0 means all cores.")] = 0,
    methods: Annotated[
        str, typer.Option(help=f"Methods of `{COSTS}` with commas between; all if empty.")
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Try `{COSTS}` on a tiny model; nothing is kept.")
    ] = False,
    page: Annotated[bool, typer.Option("--page", help="Only write the pages again.")] = False,
) -> None:
    """Measure the shipped code against plain formulations, and what every method costs.

    Such as `python -m speed --only nusa,gnsp`, `python -m speed --only costs --methods nusa,lora
    --threads 1` or `python -m speed --quick`.
    """
    console = Console()
    if threads:
        torch.set_num_threads(threads)
    names = [] if page else [COSTS] if quick else only.split(",") if only else NAMES
    if unknown := [name for name in names if name not in NAMES]:
        raise typer.BadParameter(f"unknown section {unknown[0]!r}: choose from {NAMES}")
    chosen = methods.split(",") if methods else METHODS
    if unknown := [name for name in chosen if name not in METHODS]:
        raise typer.BadParameter(f"unknown method {unknown[0]!r}: choose from {METHODS}")
    target = torch.device(device)
    if quick:
        with TemporaryDirectory() as temporary:
            trial = Path(temporary)
            costs.measure(chosen, costs.QUICK, trial, target, stamp=stamp, say=console.print)
            write_costs_page(trial, trial / "costs.md", chosen)
            console.print((trial / "costs.md").read_text("utf-8"), markup=False)
        return
    folder = RESULTS if target.type == "cpu" else RESULTS.with_name("speed-cuda")
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(target, repeats=repeats)
    for name in names:
        console.print(f"{name} ...")
        if name == COSTS:
            costs.measure(
                chosen, costs.Scale(), folder / COSTS, target, stamp=stamp, say=console.print
            )
            continue
        measured = {
            "measured": stamp(),
            "machine": machine.describe(target),
            **SECTIONS[name](plan),
        }
        path = folder / f"{name}.json"
        path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
        machine.release()
    if target.type == "cpu":
        write_page(folder, PAGE)
        write_costs_page(folder / COSTS, COSTS_PAGE, METHODS)
        console.print(f"pages: {PAGE}, {COSTS_PAGE}")
    else:
        console.print(f"results: {folder}")


if __name__ == "__main__":
    typer.run(main)
