"""Commands on many runs: `clbench compare`, `sweep`, `tune`, `study`, `status`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from clbench.cli import completion
from clbench.cli.command import command, console, say, show_directories, show_results
from clbench.cli.options import (
    LAUNCHING,
    Address,
    Backbone,
    Benchmark,
    CacheFolder,
    Cpus,
    Detach,
    DryRun,
    Fresh,
    Gpus,
    Jobs,
    Launcher,
    Logger,
    Matrices,
    Memory,
    Methods,
    Out,
    Precision,
    Probes,
    Quick,
    Quiet,
    Retries,
    Root,
    RunsDir,
    Sbatch,
    Seeds,
    Settings,
    Time,
    Trial,
    settings_of,
)
from clbench.core.errors import ClbenchError
from clbench.core.foreign.console import SafeConsole, print_line

if TYPE_CHECKING:
    from rich.table import Table

    from clbench.core.results.result import RunResult
    from clbench.launch.kept import Kept
    from clbench.launch.make import Grid, Wanted
    from clbench.launch.plan import Planned
    from clbench.tuning.tune import Tuning


@command
def compare(
    benchmark: Benchmark = None,
    methods: Methods = None,
    seeds: Seeds = None,
    backbone: Backbone = None,
    root: Root = None,
    cache: CacheFolder = None,
    runs_dir: RunsDir = Path("runs"),
    settings: Settings = None,
    precision: Precision = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML configuration file; may also name methods and seeds."),
    ] = None,
    out: Out = None,
    matrices: Matrices = False,
    logger: Logger = None,
    probe: Probes = None,
    quick: Quick = False,
    fresh: Fresh = False,
    quiet: Quiet = False,
    launcher: Launcher = "local",
    jobs: Jobs = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = None,
    time: Time = None,
    retries: Retries = 2,
    address: Address = None,
    sbatch: Sbatch = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    trial: Trial = False,
) -> None:
    """Run every method with every seed, reuse what is complete, and print the table."""
    from clbench.config import named
    from clbench.launch.plan import parse_seeds, plan

    planned = plan(
        benchmark,
        _names(methods),
        None if seeds is None else parse_seeds(seeds),
        config_file=config,
        overrides=named(backbone, settings_of(settings, root, cache, precision), logger, probe),
        quick=quick,
    )
    how = launcher, retries, {"address": address, "sbatch": sbatch or ()}
    wanted = _wanted(how, jobs, cpus, gpus, memory, time)
    manner = _Manner(dry_run, trial, detach, fresh, quiet, matrices, out)
    _make(planned, runs_dir, wanted, manner)


@command
def sweep(
    file: Annotated[
        Path | None,
        typer.Argument(help="YAML: a configuration with benchmarks, methods, seeds, grid, ..."),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="key=value,value, e.g. method.rank=8,16. Repeatable."),
    ] = None,
    benchmarks: Annotated[
        str | None, typer.Option(help="Names with commas between.", show_default="mini")
    ] = None,
    methods: Methods = None,
    seeds: Seeds = None,
    backbones: Annotated[
        str | None, typer.Option(help="As --backbone takes them, with commas between.")
    ] = None,
    orders: Annotated[
        str | None, typer.Option(help="Values of benchmark.order with commas between.")
    ] = None,
    root: Root = None,
    cache: CacheFolder = None,
    runs_dir: RunsDir = Path("runs"),
    settings: Settings = None,
    precision: Precision = None,
    out: Out = None,
    logger: Logger = None,
    probe: Probes = None,
    quick: Quick = False,
    fresh: Fresh = False,
    quiet: Quiet = False,
    launcher: Launcher = "local",
    jobs: Jobs = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = None,
    time: Time = None,
    retries: Retries = 2,
    address: Address = None,
    sbatch: Sbatch = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    trial: Trial = False,
) -> None:
    """Run all combinations of benchmarks, backbones, orders, settings, methods and seeds."""
    from clbench.config import named, read_config
    from clbench.launch.grid import parse_grid
    from clbench.launch.grid import sweep as plan_sweep
    from clbench.launch.plan import parse_seeds

    tree = {} if file is None else read_config(file)
    given = {"benchmarks": benchmarks, "backbones": backbones, "orders": orders}
    if grid is not None:
        tree["grid"] = parse_grid(grid)
    planned = plan_sweep(
        tree | {key: value for key, value in given.items() if value is not None},
        _names(methods),
        None if seeds is None else parse_seeds(seeds),
        overrides=named(None, settings_of(settings, root, cache, precision), logger, probe),
        quick=quick,
    )
    how = launcher, retries, {"address": address, "sbatch": sbatch or ()}
    wanted = _wanted(how, jobs, cpus, gpus, memory, time)
    manner = _Manner(dry_run, trial, detach, fresh, quiet, matrices=False, out=out)
    _make(planned, runs_dir, wanted, manner)


@command
def tune(
    benchmark: Benchmark = None,
    methods: Methods = None,
    budget: Annotated[int, typer.Option(min=1, help="Settings tried of every method.")] = 16,
    repeated: Annotated[
        int, typer.Option(min=0, help="How many of the best are repeated with two more seeds.")
    ] = 3,
    criterion: Annotated[
        str, typer.Option(help="What decides: average, last or transfer.")
    ] = "average",
    backbone: Backbone = None,
    root: Root = None,
    cache: CacheFolder = None,
    runs_dir: RunsDir = Path("runs"),
    settings: Settings = None,
    precision: Precision = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the results of all trials, and of tables and figures.")
    ] = Path("tuning"),
    quick: Quick = False,
    quiet: Quiet = False,
    launcher: Launcher = "local",
    jobs: Jobs = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = None,
    time: Time = None,
    retries: Retries = 2,
    address: Address = None,
    sbatch: Sbatch = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only print what would be searched.", rich_help_panel=LAUNCHING
        ),
    ] = False,
) -> None:
    """Search settings: the same budget for every method, never on a test image."""
    from clbench.config import named
    from clbench.naming import titles
    from clbench.registry import method_names
    from clbench.report.search.write import write_search
    from clbench.tuning.tune import Tuning, Wish

    names = _names(methods)
    wish = Wish(
        benchmark or "mini",
        method_names() if names in (None, "all") else list(dict.fromkeys(names)),
        budget,
        repeated,
        criterion,
        named(backbone, settings_of(settings, root, cache, precision)),
        quick,
    )
    how = launcher, retries, {"address": address, "sbatch": sbatch or ()}
    wanted = _wanted(how, jobs, cpus, gpus, memory, time)
    tuning = Tuning(wish, runs_dir, out, wanted)
    if dry_run:
        console().print(_spaces(tuning))
        say(f"{tuning.trials} trials, and up to {tuning.repetitions} repetitions with other seeds")
        return
    shown = SafeConsole(stderr=True, quiet=quiet)
    try:
        tuning.make(shown, quiet=quiet)
    finally:
        if tuning.begun:
            write_search(out, titles())
            say(f"trials, tables and figures: {out}; begin with {out / 'summary.md'}")


@command
def study(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Which; without a name, all are listed.", autocompletion=completion.studies
        ),
    ] = None,
    root: Root = None,
    cache: CacheFolder = None,
    runs_dir: RunsDir = Path("runs"),
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of its results and table.", show_default="studies/NAME"),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            help="File of its page, beside which the figure lies.", show_default="OUT/README.md"
        ),
    ] = None,
    quick: Quick = False,
    fresh: Fresh = False,
    quiet: Quiet = False,
    launcher: Launcher = "local",
    jobs: Jobs = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = None,
    time: Time = None,
    retries: Retries = 2,
    address: Address = None,
    sbatch: Sbatch = None,
    dry_run: DryRun = False,
) -> None:
    """Run or complete a committed study, and write its figure, table and page."""
    from clbench import registry

    if name is None:
        for known in registry.study_names():
            say(f"{known}: {registry.read_recipe('studies', known)['title']}")
        return
    from clbench.launch.make import Grid
    from clbench.studies.make import Making
    from clbench.studies.study import find_study
    from clbench.studies.write import write_study

    chosen = find_study(name)
    out = out or Path("studies") / name
    how = launcher, retries, {"address": address, "sbatch": sbatch or ()}
    wanted = _wanted(how, jobs, cpus, gpus, memory, time)
    making = Making(runs_dir, out, wanted, settings_of(settings, root, cache, None), quick, fresh)
    if dry_run:
        _forecast(Grid(making.left(chosen), runs_dir, wanted), None)
        return
    made = making.make(chosen, SafeConsole(stderr=True), quiet=quiet)
    files = write_study(made, out, page)
    say(f"table, figure and page: {', '.join(map(str, files))}")


@command
def status(
    runs: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how the runs in a folder stand, wherever and by whomever they are made."""
    from clbench.launch.standing import overview
    from clbench.launch.view import status_lines

    found = overview(runs)
    if as_json:
        typer.echo(json.dumps(found.plain()))
    else:
        console().print(status_lines(found))


@dataclass(frozen=True)
class _Manner:
    """What a command does besides making runs."""

    dry_run: bool
    trial: bool
    detach: bool
    fresh: bool
    quiet: bool
    matrices: bool
    out: Path | None


def _make(planned: list[Planned], runs_dir: Path, wanted: Wanted, manner: _Manner) -> None:
    """Make what is missing of a grid and print its tables, or print what would be made."""
    from clbench.core.results.result import RESULTS
    from clbench.launch.kept import Kept
    from clbench.launch.make import Grid

    kept = None if manner.out is None else Kept(manner.out / RESULTS)
    found = {} if manner.fresh or kept is None else _earlier(planned, kept)
    keys = [(settings.fingerprint(), settings.seed) for settings, _ in planned]
    left = [one for key, one in zip(keys, planned, strict=True) if key not in found]
    if found and not manner.quiet:
        taken = f"{len(found)} of {len(planned)} results are taken over from {manner.out}/{RESULTS}"
        print_line(SafeConsole(stderr=True), taken)
    grid = Grid(left, runs_dir, wanted)
    if manner.dry_run:
        _forecast(grid, SafeConsole(stderr=True) if manner.trial else None)
        return
    if manner.detach:
        say(grid.hand_over(fresh=manner.fresh))
        return
    made = grid.make(
        SafeConsole(stderr=True),
        fresh=manner.fresh,
        quiet=manner.quiet,
        ended=None if kept is None else partial(kept.keep, runs_dir),
    )
    found |= {_key(result): result for result in made.results}
    if results := [found[key] for key in dict.fromkeys(keys) if key in found]:
        show_results(results, matrices=manner.matrices)
        show_directories(made.results, runs_dir)
        if manner.out is not None:
            _write(results, manner.out)
    if made.problems:
        raise ClbenchError("\n".join(made.problems))


def _key(result: RunResult) -> tuple[str, int]:
    """What tells the runs of a grid apart."""
    return result.config_hash, result.seed


def _earlier(planned: list[Planned], kept: Kept) -> dict[tuple[str, int], RunResult]:
    """Kept results that would be the same today, by `_key`.

    Whoever names a tracker wants the run itself, which the folder does not have.
    """
    untracked = [one for one in planned if set(one[0].logger) <= {"csv"}]
    results = [result for one in untracked if (result := kept.result(one)) is not None]
    return {_key(result): result for result in results}


def _spaces(tuning: Tuning) -> Table:
    from rich.table import Table

    table = Table("method", "searched", "from", "trials", box=None, pad_edge=False)
    for tuned in tuning.methods:
        space = tuning.spaces[tuned.method]
        names, ranges = "\n".join(space) or "nothing", "\n".join(map(str, space.values()))
        table.add_row(tuned.method, names, ranges, str(tuned.search.budget))
    return table


def _forecast(grid: Grid, trial: Console | None) -> None:
    from clbench.launch.view import forecast_table

    forecast = grid.forecast(trial)
    table, total = forecast_table(forecast)
    console().print(table)
    for cell in forecast.cells:
        print_line(console(), cell.command_line)
    say(total)


def _write(results: list[RunResult], out: Path) -> None:
    from clbench.naming import titled
    from clbench.report.write import write_report

    write_report(titled(results), out)
    say(f"tables: {out}")


def _names(text: str | None) -> list[str] | str | None:
    return text if text in (None, "all") else [name.strip() for name in text.split(",")]


def _wanted(how: tuple[str, int, dict[str, Any]], *resources: Any) -> Wanted:
    """How runs are to be made; resources in the order of `clbench.launch.cells.NAMES`."""
    from clbench.launch.cells import NAMES
    from clbench.launch.make import Wanted
    from clbench.launch.quantities import parse_resources

    launcher, retries, options = how
    return Wanted(
        launcher, parse_resources(dict(zip(NAMES, resources, strict=True))), retries, options
    )
