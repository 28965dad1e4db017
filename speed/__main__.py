"""`python -m speed`: measure, write reports/speed/*.json, and the page docs/speed.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from speed import machine
from speed.page import write_page
from speed.sections import SECTIONS, Plan, stamp

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "reports" / "speed"
PAGE = ROOT / "docs" / "speed.md"


def main(
    only: Annotated[
        str, typer.Option(help=f"Sections with commas between: {', '.join(SECTIONS)}.")
    ] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    repeats: Annotated[int, typer.Option(help="Calls per formulation.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads; 0 means all cores.")] = 0,
    page: Annotated[bool, typer.Option("--page", help="Only write the page again.")] = False,
) -> None:
    """Measure the shipped code against plain formulations."""
    console = Console()
    if threads:
        torch.set_num_threads(threads)
    names = [] if page else only.split(",") if only else list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        raise typer.BadParameter(f"unknown section {unknown[0]!r}: choose from {list(SECTIONS)}")
    target = torch.device(device)
    folder = RESULTS if target.type == "cpu" else RESULTS.with_name("speed-cuda")
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(target, repeats=repeats)
    for name in names:
        console.print(f"{name} ...")
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
        console.print(f"page: {PAGE}")
    else:
        console.print(f"results: {folder}")


if __name__ == "__main__":
    typer.run(main)
