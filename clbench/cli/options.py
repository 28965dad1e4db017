"""Options and arguments that several commands have, with what a shell completes them to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clbench.cli import completion

RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Where run directories are made.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="key=value, e.g. method.rank=16 or train.lr=1e-3. Repeatable.",
        autocompletion=completion.assignments,
    ),
]
Benchmark = Annotated[
    str | None,
    typer.Option(help="Name.", show_default="mini", autocompletion=completion.benchmarks),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="mini, ARCHITECTURE, ARCHITECTURE/TAG (ViT-B-16/openai) or a weights file.",
        show_default="the benchmark's",
        autocompletion=completion.backbones,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the data sets.", show_default="the user's cache"),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="fp32, bf16 or fp16 (autocast).",
        show_default="fp32, as published",
        autocompletion=completion.precisions,
    ),
]
Logger = Annotated[
    list[str] | None,
    typer.Option(
        help="Where to track the run: csv, tensorboard, wandb. Repeatable, or with commas between.",
        show_default="csv",
        autocompletion=completion.loggers,
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Smoke run; its numbers mean nothing.")]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh", help="Start anew; an earlier run with the same settings is kept aside."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

Run = Annotated[
    Path,
    typer.Argument(help="Run directory or result file.", autocompletion=completion.runs),
]
Runs = Annotated[
    list[Path],
    typer.Argument(
        help="Run directories, result files, or folders of them.", autocompletion=completion.runs
    ),
]
