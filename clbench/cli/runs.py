"""Commands on finished runs and on models: `verify`, `rerun`, `env`, `export`, `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from clbench.cli.command import command, console, say
from clbench.cli.options import (
    Backbone,
    Benchmark,
    CacheFolder,
    Precision,
    Probes,
    Quick,
    Quiet,
    Root,
    Run,
    Runs,
    Settings,
    settings_of,
)
from clbench.core.errors import ClbenchError

if TYPE_CHECKING:
    from clbench.core.results.result import BackboneRecord

TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code",
        help="Import a method that the result names by its module or file. Read that code first.",
    ),
]


@command
def verify(
    runs: Runs,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Also re-evaluate the final checkpoints.")
    ] = False,
    trust_code: TrustCode = False,
    key: Annotated[
        Path | None, typer.Option(help="SSH public key: the runs must be signed with it.")
    ] = None,
    sign: Annotated[
        Path | None, typer.Option(help="SSH private key: sign the runs that are sound.")
    ] = None,
) -> None:
    """Check that the files of runs are unchanged and agree with each other."""
    from clbench.core.results import signature
    from clbench.tidy import result_files
    from clbench.verify import verify as check

    failed = 0
    for file in result_files(runs):
        findings = check(file, evaluate=evaluate, trust_code=trust_code, key=key)
        say(str(file.parent if file.name == "result.json" else file))
        for finding in findings:
            say(f"  {'ok   ' if finding.sound else 'WRONG'} {finding.what}: {finding.text}")
        sound = all(finding.sound for finding in findings)
        failed += not sound
        if sound and sign is not None:
            signature.sign(file.parent, sign)
            say(f"  signed with {sign}")
    if failed:
        raise ClbenchError(f"{failed} of the runs cannot be trusted: see the lines marked WRONG")


@command
def rerun(
    run: Run,
    root: Annotated[
        str | None,
        typer.Option(help="Folder of the data sets.", show_default="that of the run"),
    ] = None,
    runs_dir: Annotated[
        Path, typer.Option(help="Folder in which the repeated run is created.")
    ] = Path("reruns"),
    trust_code: TrustCode = False,
    quiet: Quiet = False,
) -> None:
    """Repeat a run with the configuration in its result, and compare the numbers."""
    from clbench import api

    result, differences = api.rerun(
        run, runs_dir=runs_dir, data_root=root, trust_code=trust_code, quiet=quiet
    )
    say(f"{result.method.name} on {result.benchmark.name}, seed {result.seed}, repeated")
    for line in differences or ["every accuracy and every loss is the same, bit for bit"]:
        say(line)
    path = api.run_directory(result, runs_dir)
    say(f"run directory: {path}")


@command
def env(run: Run) -> None:
    """Print the exact versions of a run's packages as a constraints file for pip."""
    from clbench.core.results.result import RunResult
    from clbench.report.constraints import constraints

    typer.echo(constraints(RunResult.load(run)), nl=False)


@command
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder, new or empty.")],
    format: Annotated[
        str, typer.Option(help="open_clip, or hf (transformers' CLIPModel).")
    ] = "open_clip",
    trust_code: TrustCode = False,
) -> None:
    """Write the trained model of a run for open_clip or transformers, with a model card."""
    from clbench.exporting import export as write

    exported = write(run, out, format, trust_code=trust_code)
    say(f"exported: {exported.folder}")
    for path in sorted(exported.folder.rglob("*")):
        if path.is_file():
            say(f"  {path.relative_to(exported.folder)}  {path.stat().st_size / 1e6:.1f} MB")
    if exported.difference is not None:
        say(f"open_clip gives the run's own logits; largest difference {exported.difference:.1e}")
    if exported.note:
        say(exported.note)
    if not exported.merged:
        say(f"load it with clbench.load_method({str(exported.folder)!r})")


@command
def evaluate(  # noqa: PLR0913 - arguments are the options of a command
    backbone: Backbone = None,
    benchmark: Benchmark = None,
    after: Annotated[
        str | None,
        typer.Option(
            help="The task that the model has learned last: the row of the accuracy matrix, and in "
            "class-incremental benchmarks the classes that are candidates.",
            show_default="zero-shot",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Matrix file (CSV) to put the row into; made if missing.")
    ] = None,
    name: Annotated[str, typer.Option(help="With --out: what tables call the model.")] = "",
    source: Annotated[str, typer.Option(help="With --out: where it comes from.")] = "",
    root: Root = None,
    cache: CacheFolder = None,
    settings: Settings = None,
    precision: Precision = None,
    probe: Probes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quick: Quick = False,
    quiet: Quiet = False,
) -> None:
    """Test any CLIP on all tasks of a benchmark, without training."""
    from clbench.evaluating import add_row
    from clbench.evaluating import evaluate as test

    if out is None and (name or source):
        raise ClbenchError("--name and --source are written into a matrix file: name it with --out")
    evaluation = test(
        backbone,
        benchmark or "mini",
        after=after,
        settings=settings_of(settings, root, cache, precision),
        probes=probe,
        quick=quick,
        quiet=quiet,
    )
    if out is not None:
        add_row(out, evaluation, name, source)
    if as_json:
        typer.echo(json.dumps(evaluation.to_json(), indent=2))
        return
    smoke = ", quick: numbers mean nothing" if evaluation.quick else ""
    model = f"{evaluation.backbone.model} ({evaluation.backbone.weights})"
    say(f"{model} on {evaluation.benchmark.name} v{evaluation.benchmark.version}{smoke}")
    table = Table("task", "images", "accuracy", box=None, pad_edge=False)
    table.columns[1].justify = table.columns[2].justify = "right"
    counts = dict(zip(evaluation.matrix.tasks, evaluation.matrix.counts or (), strict=True))
    for task, accuracy in evaluation.accuracy.items():
        table.add_row(Text(task), str(counts[task]), f"{100 * accuracy:.2f} %")
    table.add_row(Text("mean", style="bold"), "", f"{100 * evaluation.mean:.2f} %")
    console().print(table)
    _show_probes(evaluation.probes)
    if after is None and not evaluation.quick:
        show_probe_check(evaluation.probes, evaluation.backbone)
    if out is not None:
        say(f"row {evaluation.after!r} of {out}")


def _show_probes(probes: Mapping[str, Mapping[str, float | None]]) -> None:
    """Print what probes measured, without details."""
    for name, values in probes.items():
        table = Table(f"probe {name}", "", box=None, pad_edge=False)
        table.columns[1].justify = "right"
        for measure, value in values.items():
            if value is not None and "/" not in measure:
                table.add_row(Text(measure), f"{value:.4g}")
        console().print(table)


def show_probe_check(
    probes: Mapping[str, Mapping[str, float | None]], backbone: BackboneRecord
) -> None:
    """Print what probes found before training beside the published numbers, if there are any."""
    if not probes:
        return
    from clbench.report.papers.published import papers
    from clbench.report.papers.zero_shot_check import probe_check

    if (check := probe_check(probes, backbone, papers()["probes"])) is not None:
        console().print(check)
