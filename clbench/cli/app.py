"""The command line: `clbench run`, `compare`, `report`, `dashboard`, `metrics`, `list`, ..."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clbench.cli import completion, grids, runs
from clbench.cli.command import command, console, say, show_directories, show_results
from clbench.cli.data import data_app
from clbench.cli.options import (
    Backbone,
    Benchmark,
    CacheFolder,
    Columns,
    Fresh,
    Labels,
    Logger,
    Precision,
    Preset,
    Probes,
    Quick,
    Quiet,
    Root,
    RunsDir,
    Settings,
    ShownMethods,
    Sort,
    labels_of,
    settings_of,
)
from clbench.core.errors import ClbenchError
from clbench.engine.process.environment import follows

if TYPE_CHECKING:
    from clbench.core.results.result import RunResult
    from clbench.report.paired.comparison import RunFiles
    from clbench.report.tables.collection import Paired

RUNS, RESULTS, NAMES = "Train and test", "Results", "Methods, benchmarks, data"
"""Headings of the commands in ``clbench --help``."""

app = typer.Typer(
    name="clbench",
    help="Compare continual-learning methods on CLIP.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try: clbench run --quick | clbench list | clbench show nusa",
)

app.add_typer(data_app, name="data", rich_help_panel=NAMES)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"clbench {version('clbench')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Compare continual-learning methods on CLIP."""


@app.command(
    rich_help_panel=RUNS,
    epilog="Examples: clbench run --method nusa --benchmark mini --set method.rank=32 | "
    "clbench run --method nusa --benchmark mini --logger csv,wandb | "
    "clbench run --method gnsp --probe gap,calibration",
)
@command
def run(
    method: Annotated[
        str | None,
        typer.Option(
            help="Name, package.module:Class or file.py:Class.",
            show_default="nusa",
            autocompletion=completion.methods,
        ),
    ] = None,
    benchmark: Benchmark = None,
    seed: Annotated[int | None, typer.Option(help="Training seed.", show_default="0")] = None,
    backbone: Backbone = None,
    root: Root = None,
    cache: CacheFolder = None,
    runs_dir: RunsDir = Path("runs"),
    settings: Settings = None,
    precision: Precision = None,
    config: Annotated[Path | None, typer.Option(help="YAML configuration file.")] = None,
    logger: Logger = None,
    probe: Probes = None,
    quick: Quick = False,
    fresh: Fresh = False,
    quiet: Quiet = False,
) -> None:
    """Train and test one method on one benchmark. The same command resumes."""
    from clbench import api

    result = api.run(
        method,
        benchmark,
        seed=seed,
        backbone=backbone,
        runs_dir=runs_dir,
        settings=settings_of(settings, root, cache, precision),
        config_file=config,
        logger=logger,
        probes=probe,
        quick=quick,
        fresh=fresh,
        quiet=quiet,
    )
    if follows():
        return
    show_results([result], matrices=True)
    _show_checks(result)
    show_directories([result], runs_dir)


@app.command(
    rich_help_panel=RESULTS,
    epilog="Examples: clbench report runs/mini --out tables | "
    "clbench report runs/mini --compare nusa,lora --compare all,finetune | "
    "clbench report runs/mtil --published | clbench report runs/mini --claims mtil | "
    "clbench report runs/mini --out tables --figures --html | "
    "clbench report runs/mtil --columns transfer,last --sort last --label nusa=Ours | "
    "clbench report runs/mtil --out tables --figures --methods nusa,zscl --preset paper | "
    "clbench report runs/mtil zscl.csv mine.csv --out tables",
)
@command
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run directories, result files, or folders of them; accuracy matrices from "
            "elsewhere as CSV.",
            autocompletion=completion.runs,
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the tables into this folder.")] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Two methods with a comma between: their differences on the same test images and "
            "seeds, with confidence intervals and tests. all,METHOD: those of all methods to one, "
            "and the ranks that follow. Repeatable.",
            autocompletion=completion.method_list,
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Show published numbers beside the measured ones.")
    ] = False,
    claims: Annotated[
        str | None,
        typer.Option(
            help="A benchmark, e.g. mtil: which methods papers found better on it, and whether it "
            "is so in these runs, whatever their benchmark.",
            autocompletion=completion.benchmarks,
        ),
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Also write figures as SVG, PDF and PNG.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--html", help="Also write index.html: everything on one page.")
    ] = False,
    methods: ShownMethods = None,
    columns: Columns = None,
    sort: Sort = None,
    label: Labels = None,
    preset: Preset = None,
) -> None:
    """Build tables (Markdown, CSV, LaTeX, HTML), figures and a page from finished runs."""
    if out is None and (figures or page):
        raise ClbenchError("--figures and --html write files: name a folder with --out")
    from clbench.naming import labelled, names_among
    from clbench.report.console import comparisons_console, foreign_console, published_console
    from clbench.report.paired.claims import claims as paper_claims
    from clbench.report.tables.foreign import read_foreign
    from clbench.report.tables.grid import make_view
    from clbench.report.write import write_report
    from clbench.tidy import find_runs

    foreign = [read_foreign(path) for path in runs if path.suffix == ".csv"]
    paths = [path for path in runs if path.suffix != ".csv"]
    if not paths and (figures or page or compare or published or claims):
        raise ClbenchError(
            "--figures, --html, --compare, --published and --claims are about runs: name some, too"
        )
    found = find_runs(paths)
    results = labelled([result for _, result in found], labels_of(label))
    found = list(zip([path for path, _ in found], results, strict=True))
    chosen = names_among(methods, results)
    view = make_view(chosen, columns, sort, preset)
    comparisons = [c for text in compare or [] for c in _compared(found, text)]
    comparisons += paper_claims(found, claims) if claims else []
    deviation = None
    if published:
        from clbench import api

        deviation = api.recipe_deviation
    if results:
        show_results(results, view=view)
    if foreign:
        console().print(foreign_console(results, foreign))
    console().print(comparisons_console(comparisons))
    if deviation is not None:
        console().print(published_console(results, deviation))
    if out is not None:
        tables: dict[str, Any] = {
            "comparisons": comparisons,
            "deviation": deviation,
            "foreign": foreign,
            "view": view,
        }
        written = write_report(results, out, **tables)
        if figures or page:
            written += _write_drawings(results, out, figures, page, tables)
        tables_page = "summary.md" if results else written[0].name
        first = out / ("index.html" if page else tables_page)
        say(f"{len(written)} files in {out}; begin with {first}")


def _write_drawings(
    results: list[RunResult], out: Path, figures: bool, page: bool, tables: dict[str, Any]
) -> list[Path]:
    """Write figures, the page, or both; each figure is drawn once."""
    from clbench.report.figures.draw import draw_all, write_figures
    from clbench.report.page.build import write_page
    from clbench.report.ranks.write import write_ranks

    drawn = draw_all(results, tables["view"].methods)
    paths = [*write_figures(drawn, out), *write_ranks(results, out)] if figures else []
    return [*paths, write_page(results, out, figures=drawn, **tables)] if page else paths


@app.command(rich_help_panel=RESULTS, epilog="Examples: clbench published | clbench published nusa")
@command
def published(
    method: Annotated[
        str | None, typer.Argument(help="Name in clbench or in the papers.", show_default="all")
    ] = None,
) -> None:
    """List numbers from papers, with their sources."""
    from clbench.report.console import published_list

    console().print(published_list(method))


@app.command(
    rich_help_panel=RESULTS,
    epilog="Example: clbench dashboard --project clbench --entity my-team runs/mini | "
    "WANDB_MODE=offline clbench dashboard --entity my-team runs/mini --out dashboard.json",
)
@command
def dashboard(
    entity: Annotated[str, typer.Option(envvar="WANDB_ENTITY", help="W&B user or team.")],
    project: Annotated[str, typer.Option(envvar="WANDB_PROJECT", help="W&B project.")] = "clbench",
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run directories, or folders of them; by default all runs of the project.",
            autocompletion=completion.runs,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="File for the report's specification if it cannot be sent.")
    ] = Path("dashboard.json"),
) -> None:
    """Save a comparison of runs that were logged with --logger wandb as a W&B report."""
    from clbench.trackers.wandb_dashboard import find_tracked_runs, publish_dashboard

    text = publish_dashboard(find_tracked_runs(runs or ()), project, entity, out)
    say(text)


@app.command(rich_help_panel=RESULTS, epilog="Example: clbench metrics matrix.csv --json")
@command
def metrics(
    matrix: Annotated[
        Path,
        typer.Argument(
            help="CSV: first column the task just learned, one column per task, percent or "
            "fractions, optionally a row 'zero-shot'; above them, optionally, lines '# name: ...', "
            "'# source: ...' and '# setting: class-incremental'."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute Transfer, Avg, Last, Forgetting, BWT and more from an accuracy matrix."""
    from clbench.report.tables.foreign import read_foreign

    foreign = read_foreign(matrix)
    summary = foreign.matrix.summary()
    if as_json:
        stated = {"name": foreign.name, "source": foreign.source} if foreign.source else {}
        typer.echo(json.dumps({**stated, **summary}))
        return
    if foreign.source:
        say(f"{foreign.name} ({foreign.source})")
    for key, value in summary.items():
        typer.echo(f"{key:<18} {'-' if value is None else f'{100 * value:.2f} %'}")


@app.command("list", rich_help_panel=NAMES, epilog="Example: clbench list methods")
@command
def list_names(
    kind: Annotated[
        str,
        typer.Argument(
            help="methods, benchmarks, recipes, settings or all.", autocompletion=completion.kinds
        ),
    ] = "all",
) -> None:
    """List methods, benchmarks, recipes and settings."""
    from clbench.cli.show import listing

    console().print(listing(kind))


@app.command(
    rich_help_panel=NAMES,
    epilog="Examples: clbench show nusa | clbench show mini --images sheet.png | "
    "clbench show runs/mini/nusa/seed0-1a2b3c4d",
)
@command
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A method, benchmark, recipe, run directory or result file.",
            autocompletion=completion.names,
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(help="Write a contact sheet of a benchmark's test images.")
    ] = None,
) -> None:
    """Describe a method, benchmark or recipe, or the provenance of a run."""
    from clbench.cli import show as describe
    from clbench.cli import show_run as describe_run

    if images is not None:
        describe.write_contact_sheet(name, images)
        say(f"contact sheet: {images}")
        return
    if describe_run.is_run(name):
        console().print(describe_run.describe_run(Path(name)))
        return
    console().print(describe.description(name))


app.command(
    rich_help_panel=RUNS,
    epilog="Examples: clbench compare --benchmark mini --methods nusa,lora --seeds 0-4 | "
    "clbench compare --config study.yaml --jobs 4 | clbench compare --logger wandb | "
    "clbench compare --methods nusa,lora --probe gap,calibration --out tables",
)(grids.compare)
app.command(
    rich_help_panel=RUNS,
    epilog="Examples: clbench sweep study.yaml --dry-run | "
    "clbench sweep --methods nusa --grid method.rank=8,16,32 --grid train.lr=1e-4,3e-4 --seeds 0-4",
)(grids.sweep)
app.command(
    rich_help_panel=RUNS,
    epilog="Examples: clbench tune --methods all --dry-run | "
    "clbench tune --methods finetune,lora --budget 4 --quick | "
    "clbench tune --benchmark mini --jobs 2 --out reports/tuning",
)(grids.tune)
app.command(
    rich_help_panel=RUNS,
    epilog="Examples: clbench study | clbench study rho-scan --jobs 2 | "
    "clbench study rho-scan --quick --out /tmp/rho",
)(grids.study)
app.command(
    rich_help_panel=RESULTS,
    epilog="Examples: clbench status runs | clbench status runs --json",
)(grids.status)
app.command(
    rich_help_panel=RESULTS,
    epilog="Examples: clbench verify runs/mini | clbench verify RUN --evaluate | "
    "clbench verify RUN --key author.pub",
)(runs.verify)
app.command(rich_help_panel=RUNS, epilog="Example: clbench rerun runs/mini/nusa/seed0-1a2b3c4d")(
    runs.rerun
)
app.command(
    rich_help_panel=RESULTS,
    epilog="Example: clbench env runs/mini/nusa/seed0-1a2b3c4d > constraints.txt",
)(runs.env)
app.command(
    rich_help_panel=RESULTS,
    epilog="Examples: clbench export runs/mini/nusa/seed0-1a2b3c4d --out nusa | "
    "clbench export RUN --format hf --out nusa-hf",
)(runs.export)
app.command(
    rich_help_panel=RUNS,
    epilog="Examples: clbench evaluate --backbone ViT-B-16/openai --benchmark mtil --root ~/data | "
    "clbench evaluate --backbone after-1.pt --benchmark mtil --after Aircraft --out mine.csv | "
    "clbench evaluate --backbone mini --probe gap,calibration",
)(runs.evaluate)


def _compared(found: RunFiles, text: str) -> Sequence[Paired]:
    """What ``--compare`` asks for."""
    from clbench.report.paired.against import against
    from clbench.report.paired.comparison import compare_methods

    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise ClbenchError(
            f"--compare {text!r}: expected two methods, e.g. nusa,lora, or all,finetune"
        )
    first, second = names
    return against(found, second) if first == "all" else compare_methods(found, first, second)


def _show_checks(result: RunResult) -> None:
    from clbench import registry
    from clbench.report.papers.zero_shot_check import zero_shot_check

    published = registry.benchmark(result.config["benchmark"]["name"]).results.get("zero_shot")
    if published is not None and result.method.name == "zeroshot":
        console().print(zero_shot_check(result, published))
    if result.status != "quick":
        first = {name: record.first for name, record in result.probes.items()}
        runs.show_probe_check(first, result.backbone)


def main() -> None:
    """Entry point of the `clbench` command."""
    app()


if __name__ == "__main__":
    main()
