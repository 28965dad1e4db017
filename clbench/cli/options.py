"""Options and arguments that several commands have, with their shell completion."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clbench.cli import completion
from clbench.core.errors import ClbenchError

RunsDir = Annotated[
    Path, typer.Option("--runs-dir", help="Folder in which run directories are created.")
]
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
        help="mini, ARCHITECTURE, ARCHITECTURE/TAG (ViT-B-16/openai), a weights file or an "
        "exported folder.",
        show_default="the benchmark's",
        autocompletion=completion.backbones,
    ),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of the data sets.", show_default="the user's cache"),
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Folder of decoded images, index files and hashes.",
        show_default="that of the data sets, or the user's cache",
    ),
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
        help="Where to log the run: csv, tensorboard, wandb; comma-separated or repeated.",
        show_default="csv",
        autocompletion=completion.loggers,
    ),
]
Probes = Annotated[
    list[str] | None,
    typer.Option(
        "--probe",
        help="What to measure at every row besides accuracies, e.g. gap; names or file.py:Class, "
        "comma-separated or repeated.",
        autocompletion=completion.probes,
    ),
]
Quick = Annotated[bool, typer.Option("--quick", help="Smoke run; its numbers mean nothing.")]
Fresh = Annotated[
    bool,
    typer.Option(
        "--fresh",
        help="Start from scratch; an earlier run with the same settings is moved to aside/.",
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
Out = Annotated[
    Path | None,
    typer.Option(
        help="Also write tables and the result files there; results that are there already and "
        "would be the same today are taken over."
    ),
]
Matrices = Annotated[bool, typer.Option("--matrices", help="Print every matrix too.")]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Names with commas between, or all.",
        show_default="all",
        autocompletion=completion.method_list,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="Training seeds: numbers and ranges, 0,2,5-7.", show_default="0-2; 0 with --quick"
    ),
]

LAUNCHING = "How runs are launched"
Launcher = Annotated[str, typer.Option(help="local, ray or slurm.", rich_help_panel=LAUNCHING)]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        "-j",
        min=1,
        help="Runs at a time.",
        rich_help_panel=LAUNCHING,
        show_default="as many as there is room for",
    ),
]
Cpus = Annotated[
    int | None, typer.Option(min=1, help="Threads of a run.", rich_help_panel=LAUNCHING)
]
Gpus = Annotated[
    float | None,
    typer.Option(
        min=0, help="CUDA devices of a run; a fraction shares one.", rich_help_panel=LAUNCHING
    ),
]
Memory = Annotated[
    str | None, typer.Option(help="Memory of a run, e.g. 16G.", rich_help_panel=LAUNCHING)
]
Time = Annotated[
    str | None, typer.Option(help="Time of a run, e.g. 12h.", rich_help_panel=LAUNCHING)
]
Retries = Annotated[
    int, typer.Option(min=0, help="New attempts at a run that failed.", rich_help_panel=LAUNCHING)
]
Detach = Annotated[
    bool,
    typer.Option(
        "--detach",
        help="Slurm: submit and leave; the same command without it watches the jobs.",
        rich_help_panel=LAUNCHING,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray: of a cluster.", rich_help_panel=LAUNCHING, show_default="Ray on this machine"
    ),
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(
        help="Slurm: an option of sbatch, e.g. --partition=gpu. Repeatable.",
        rich_help_panel=LAUNCHING,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Only print the runs, and what they will cost.", rich_help_panel=LAUNCHING
    ),
]


Trial = Annotated[
    bool,
    typer.Option(
        "--trial",
        help="With --dry-run: where nothing is known, make a smoke run to tell the cost.",
        rich_help_panel=LAUNCHING,
    ),
]

LAYOUT = "What is shown"
ShownMethods = Annotated[
    str | None,
    typer.Option(
        "--methods",
        help="Names with commas between: the rows of tables, and what stands out in figures and "
        "on the page.",
        show_default="all; in figures the baselines and the best of each family",
        autocompletion=completion.method_list,
        rich_help_panel=LAYOUT,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Columns of the summary with commas between, e.g. transfer,last.",
        show_default="all that hold something",
        autocompletion=completion.columns,
        rich_help_panel=LAYOUT,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        help="Column by which methods are sorted, the best first.",
        show_default="by name, those that store nothing first",
        autocompletion=completion.columns,
        rich_help_panel=LAYOUT,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        help="NAME=TITLE: what a method is called, e.g. nusa=NuSA-CL. Repeatable.",
        show_default="the title that its class declares",
        rich_help_panel=LAYOUT,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Columns of the summary: paper (few), or full.",
        show_default="full",
        autocompletion=completion.presets,
        rich_help_panel=LAYOUT,
    ),
]


def labels_of(assignments: list[str] | None) -> dict[str, str]:
    """What ``--label`` says: name of a method to its title.

    Raises:
        ClbenchError: one is no assignment.
    """
    labels = {}
    for text in assignments or ():
        name, equals, title = text.partition("=")
        if not equals:
            raise ClbenchError(f"--label {text!r}: expected NAME=TITLE, e.g. nusa=NuSA-CL")
        labels[name.strip()] = title.strip()
    return labels


def settings_of(
    assignments: list[str] | None, root: Path | None, cache: Path | None, precision: str | None
) -> dict[str, Any]:
    """What ``--set``, ``--root``, ``--cache`` and ``--precision`` say, by dotted key."""
    from clbench.config import parse_assignments

    options = {"data_root": root, "cache_root": cache, "precision": precision}
    given = {name: str(value) for name, value in options.items() if value is not None}
    return {**given, **parse_assignments(assignments or ())}
