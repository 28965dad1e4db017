"""Runs and comparisons from Python; the command line is a thin layer over this."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from clbench import config
from clbench.clip.model import CLIP
from clbench.core.data import SequenceData
from clbench.core.errors import ClbenchError
from clbench.core.foreign.console import SafeConsole
from clbench.core.method import REFERENCE_SOURCES, Method
from clbench.core.results.display import show_with
from clbench.core.results.losses import same_losses
from clbench.core.results.manifest import FIRST_SCHEMA
from clbench.core.results.result import RunResult
from clbench.core.results.soundness import same_numbers
from clbench.core.settings import RunSettings
from clbench.core.task import Benchmark
from clbench.engine.process.environment import Place, place
from clbench.engine.process.guarded_trackers import GuardedTrackers
from clbench.engine.process.progress import QuietReporter, Reporter, make_reporter
from clbench.engine.process.randomness import same_threads
from clbench.engine.process.world import ALONE, World, joined, leading
from clbench.engine.rundir.checkpoints import Position
from clbench.engine.rundir.directory import RunDirectory, folder_name, run_path
from clbench.engine.rundir.resuming import differences, require_same_source
from clbench.engine.rundir.sources import source_hash
from clbench.engine.rundir.zeroshot import ZeroShotCache
from clbench.engine.runner import SequenceRunner
from clbench.engine.training.trainers import choose_device
from clbench.inputs import (
    load_inputs,
    make_probes,
    require_inputs,
    require_reference,
    unmeasured,
)
from clbench.launch.grid import sweep as plan_sweep
from clbench.launch.make import Grid, Wanted
from clbench.launch.plan import plan
from clbench.launch.quantities import parse_resources
from clbench.report.notebook import NotebookDisplay
from clbench.report.papers.published import papers
from clbench.report.run_files import publish
from clbench.trackers.choose import make_trackers

Overrides = Mapping[str, Any]

show_with(NotebookDisplay())


def run(
    method: str | type[Method] | None = None,
    benchmark: str | None = None,
    *,
    seed: int | None = None,
    backbone: str | None = None,
    runs_dir: Path | str = "runs",
    settings: Overrides | None = None,
    config_file: Path | None = None,
    logger: str | Sequence[str] | None = None,
    probes: str | Sequence[str] | None = None,
    quick: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    console: Console | None = None,
) -> RunResult:
    """Train and test one method on one benchmark, or resume an interrupted run.

    Args:
        method: name, ``package.module:Class``, ``file.py:Class`` or a `Method` class; ``nusa`` by
            default.
        benchmark: name; ``mini`` by default.
        seed: training seed; 0 by default.
        backbone: ``mini``, ``ARCHITECTURE``, ``ARCHITECTURE/TAG`` or a weights file; that of the
            benchmark by default.
        runs_dir: where run directories are made.
        settings: dotted keys to values, e.g. ``{"method.rank": 16, "train.steps": 50}``.
        config_file: YAML file with a configuration tree.
        logger: names among ``csv``, ``tensorboard`` and ``wandb``; ``csv`` by default.
        probes: what to measure at every row besides accuracies, e.g. ``("gap", "calibration")``.
        quick: a smoke run whose numbers mean nothing.
        fresh: start from scratch and move an earlier run with the same settings aside.
        quiet: show no progress.
        console: where progress is shown; standard error by default.

    Returns:
        The result; that of the existing directory if the run is complete.

    Raises:
        ClbenchError: a mistake the user can mend, or an earlier run with the same settings was made
            with another source of the method.
    """
    overrides = config.named(backbone, settings, logger, probes)
    if seed is not None:
        overrides["seed"] = seed
    resolved, cls = config.resolve(
        method, benchmark, config=config_file, overrides=overrides, quick=quick
    )
    return run_resolved(resolved, cls, Path(runs_dir), _reporter(console, quiet), fresh=fresh)


def run_resolved(
    settings: RunSettings,
    cls: type[Method],
    runs_dir: Path,
    reporter: Reporter,
    *,
    fresh: bool = False,
) -> RunResult:
    """Run resolved settings; see `run`."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    source_hash(cls)  # before its files may be edited
    found = place()
    if found is None:
        return _lead(settings, cls, runs_dir, reporter, fresh, ALONE)
    found.require(settings.devices)
    with _joined(found, settings, runs_dir) as world:
        if world.leads:
            result = _lead(settings, cls, runs_dir, reporter, fresh, world)
        elif world.told(None):
            _train_along(settings, cls, runs_dir, world)
        told: RunResult = world.told(result if world.leads else None)
        return told


def _lead(
    settings: RunSettings,
    cls: type[Method],
    runs_dir: Path,
    reporter: Reporter,
    fresh: bool,
    world: World,
) -> RunResult:
    """Make a run; other processes are told whether there is anything to train."""
    directory = RunDirectory(run_path(runs_dir, settings), runs_dir)
    directory.require_free()
    if fresh and (aside := directory.put_aside()) is not None:
        reporter.note(f"the earlier run is now in {aside}")
    result = directory.result()
    quiet = type(reporter) is QuietReporter
    if result is not None:
        require_same_source(result, cls, directory.path)
    if result is not None and result.status != "partial":
        require_inputs(settings, result, directory.path, quiet=quiet)
        reporter.note(f"already complete: {directory.path}")
        if lacking := unmeasured(settings, result):
            reporter.note(lacking)
        _seal_finished(settings, result, directory, reporter)
        _track_finished(settings, result, directory, reporter)
        world.told(False)
        return result
    # Before the directory is made: where weights or data are missing, nothing is left behind.
    model, sequence = load_inputs(settings)
    require_reference(settings, cls, sequence, quiet=quiet)
    _require_images(settings, cls, sequence)
    note_unknown_words(model, sequence.benchmark, reporter)
    for note in sequence.notes:
        reporter.note(note)
    sequence.hash_images(quiet=quiet)
    sequence.prepare(settings.train, quiet=quiet)
    probes = make_probes(settings, model, quiet=quiet)
    world.told(True)
    started = nullcontext(world) if world.size > 1 else None
    with directory, started or leading(settings, runs_dir, choose_device(settings)) as world:
        for note in sequence.notes:
            directory.log(note)
        runner = SequenceRunner(
            settings,
            sequence,
            model,
            cls(**settings.method.params),
            directory,
            reporter=reporter,
            zero_shot=_zero_shot_cache(settings, model.fingerprint(), sequence, runs_dir),
            publish=publish,
            world=world,
            probes=probes,
        )
        return runner.run(make_trackers(settings.logger, reporter.note))


def follow(settings: RunSettings, cls: type[Method], runs_dir: Path, place: Place) -> None:
    """Train along with the process that `run_resolved` leads, at a place beside it."""
    with _joined(place, settings, runs_dir) as world:
        _train_along(settings, cls, runs_dir, world)


def _joined(place: Place, settings: RunSettings, runs_dir: Path) -> AbstractContextManager[World]:
    return joined(place, choose_device(settings), run_path(runs_dir, settings))


def _train_along(settings: RunSettings, cls: type[Method], runs_dir: Path, world: World) -> None:
    model, sequence = load_inputs(settings)
    SequenceRunner(
        settings,
        sequence,
        model,
        cls(**settings.method.params),
        RunDirectory(run_path(runs_dir, settings), runs_dir),
        reporter=QuietReporter(),
        zero_shot=_zero_shot_cache(settings, model.fingerprint(), sequence, runs_dir),
        publish=publish,
        world=world,
    ).follow()


def _require_images(settings: RunSettings, cls: type[Method], sequence: SequenceData) -> None:
    """Refuse more processes than a batch has images.

    Raises:
        ClbenchError: names both numbers.
    """
    if settings.devices == 1:
        return
    counts = [settings.train.batch_size]
    if "trains-at-once" not in cls.traits:
        counts += [len(sequence.train_set(task.index)) for task in sequence.benchmark.tasks]
    World(size=settings.devices).weight(min(counts))


def rerun(
    path: Path | str,
    *,
    runs_dir: Path | str = "reruns",
    data_root: str | None = None,
    method: type[Method] | None = None,
    trust_code: bool = False,
    quiet: bool = False,
    console: Console | None = None,
) -> tuple[RunResult, list[str]]:
    """Repeat a run with the configuration in its result.

    Args:
        path: run directory or result file.
        runs_dir: where the repetition is made; another place than the run's own.
        data_root: where data sets lie, if elsewhere than for the run.
        method: the method's class, for one that cannot be found by name, such as a notebook's.
        trust_code: import a method that the result names as ``module:Class`` or ``file.py:Class``.
        quiet: show no progress.
        console: where progress is shown; standard error by default.

    Returns:
        The new result, and a line for every difference from the old one.

    Raises:
        ClbenchError: the result is damaged, its configuration is no longer valid, its method is
            code that is not trusted, or the run fails.
    """
    before = RunResult.load(path)
    content = {**before.config, **({} if data_root is None else {"data_root": data_root})}
    resolved, cls = config.revive(content, method, trust_code=trust_code)
    with same_threads(before):
        after = run_resolved(resolved, cls, Path(runs_dir), _reporter(console, quiet))
    lines = same_numbers(before, after)
    earlier = Path(path) if Path(path).is_dir() else Path(path).parent
    lines += same_losses(earlier, run_directory(after, Path(runs_dir)))
    if before.method.source not in ("", after.method.source):
        lines.insert(0, f"the source of method {before.method.name!r} is another than in the run")
    if lines and (changed := differences(before, after.provenance)):
        lines.append(f"the machine has other {', '.join(changed)}: the last digits may differ")
    return after, lines


def compare(
    benchmark: str | None = None,
    methods: Sequence[str] | str | None = None,
    seeds: Sequence[int] | None = None,
    *,
    backbone: str | None = None,
    runs_dir: Path | str = "runs",
    settings: Overrides | None = None,
    config_file: Path | None = None,
    logger: str | Sequence[str] | None = None,
    probes: str | Sequence[str] | None = None,
    quick: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    console: Console | None = None,
    **options: Any,
) -> list[RunResult]:
    """Run every method with every seed, reusing what is complete.

    Runs are made in processes of their own, as many at a time as the machine has room for. All
    configurations are validated before the first starts. A run that fails does not keep the others
    from running.

    Args:
        benchmark: name of the benchmark; ``mini`` by default.
        methods: names, or ``all``, which is the default.
        seeds: training seeds; 0, 1 and 2 by default, 0 for smoke runs.
        backbone: as in `run`.
        runs_dir: where run directories are made.
        settings: dotted keys to values, for every run.
        config_file: YAML file with a configuration tree, which may name ``methods`` and ``seeds``.
        logger: as in `run`.
        probes: as in `run`.
        quick: smoke runs whose numbers mean nothing.
        fresh: start all runs from scratch and move earlier ones aside.
        quiet: show no progress.
        console: where progress is shown; standard error by default.
        **options: how the runs are made: ``launcher`` (``local`` by default), ``retries``, ``jobs``
            (runs at a time), and what a run may use: ``cpus``, ``gpus``, ``memory``, ``time``.

    Raises:
        ClbenchError: an invalid configuration; or, after all other runs, those that failed.
    """
    planned = plan(
        benchmark,
        methods,
        seeds,
        config_file=config_file,
        overrides=config.named(backbone, settings, logger, probes),
        quick=quick,
    )
    return _made(Grid(planned, Path(runs_dir), _wanted(options)), console, fresh, quiet)


def sweep(
    tree: Mapping[str, Any],
    *,
    runs_dir: Path | str = "runs",
    quick: bool = False,
    fresh: bool = False,
    quiet: bool = False,
    console: Console | None = None,
    **options: Any,
) -> list[RunResult]:
    """Run all combinations of benchmarks, backbones, orders, settings, methods and seeds.

    Args:
        tree: the content of a file for ``clbench sweep``: a configuration that may have the keys
            ``benchmarks``, ``methods``, ``seeds``, ``backbones``, ``orders`` and ``grid``.
        runs_dir: as in `compare`, like all that follow.
        quick: smoke runs whose numbers mean nothing.
        fresh: start all runs anew and put earlier ones aside.
        quiet: show no progress.
        console: where progress is shown; standard error by default.
        **options: how the runs are made, see `compare`.

    Raises:
        ClbenchError: as `compare`.
    """
    planned = plan_sweep(tree, quick=quick)
    return _made(Grid(planned, Path(runs_dir), _wanted(options)), console, fresh, quiet)


def load_result(path: Path | str) -> RunResult:
    """Load the result of a run directory or a result file.

    Raises:
        ClbenchError: it is missing, damaged or inconsistent.
    """
    return RunResult.load(path)


def run_directory(result: RunResult, runs_dir: Path) -> Path:
    """Where the run of a result lies."""
    return run_path(runs_dir, RunSettings.model_validate(result.config))


def recipe_deviation(result: RunResult) -> str | None:
    """In which way a run was not made with its method's recipe; None if it was.

    Published numbers are compared with runs of the recipe only: its settings are the papers', but
    for switches that papers.yaml names. Reference data may lie anywhere: which they are is judged
    by what the run found there (`clbench.report.tables.published.incomparable`).
    """
    section, method = result.config["benchmark"], result.method.name
    if ":" in method:  # a result must not make this process import what it names
        return "other settings: no recipe for a method from elsewhere"
    overrides = {f"benchmark.{key}": value for key, value in section["options"].items()}
    published_with = papers()["published_with"].get(method, {})
    overrides |= {f"method.{key}": value for key, value in published_with.items()}
    try:
        recipe, _ = config.resolve(method, section["name"], overrides=overrides)
    except ClbenchError:
        return "other settings: no recipe for this method and benchmark"
    expected, used = _decisive(recipe.model_dump(mode="json")), _decisive(result.config)
    places = {f"method.{key}" for key in REFERENCE_SOURCES}
    differing = [k for k, v in expected.items() if used.get(k) != v and k not in places]
    return f"other settings than the recipe's: {', '.join(differing)}" if differing else None


def _decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of method and training by dotted key."""
    sections = {"method": settings["method"]["params"], "train": settings["train"]}
    dotted = {f"{name}.{key}": v for name, found in sections.items() for key, v in found.items()}
    return {**dotted, "precision": settings["precision"]}


def _wanted(options: Mapping[str, Any]) -> Wanted:
    """How runs are to be made, from the arguments of a Python call."""
    given = dict(options)
    own = {key: given.pop(key) for key in ("launcher", "retries", "options") if key in given}
    return Wanted(resources=parse_resources(given), **own)


def _made(grid: Grid, console: Console | None, fresh: bool, quiet: bool) -> list[RunResult]:
    made = grid.make(console or SafeConsole(stderr=True), fresh=fresh, quiet=quiet)
    if made.problems:
        raise ClbenchError("\n".join(made.problems))
    return made.results


def note_unknown_words(model: CLIP, benchmark: Benchmark, reporter: Reporter) -> None:
    """Warn that a reduced vocabulary, such as that of ``mini``, does not cover the class names."""
    texts = [text for task in benchmark.tasks for texts in task.classes.prompts for text in texts]
    if words := model.unknown_words(texts):
        reporter.note(
            f"backbone {model.name} lacks {len(words)} words of {benchmark.name}'s prompts "
            f"({', '.join(words[:3])}, ...): other words replace them, so the numbers are "
            "only fit for a smoke test"
        )


def _seal_finished(
    settings: RunSettings, result: RunResult, directory: RunDirectory, reporter: Reporter
) -> None:
    """Do what a process that died right after the last test has left undone."""
    if directory.sealed or result.schema_version < FIRST_SCHEMA:
        return
    try:
        with directory:
            directory.checkpoints.keep_only(Position(result.matrix.learned))
            publish(result, directory.path)
            if "csv" in settings.logger:
                GuardedTrackers(make_trackers(["csv"], reporter.note), reporter.note).begin(
                    result, directory.path
                )
            directory.seal()
    except ClbenchError as error:  # the result can be shown all the same
        reporter.note(str(error))


def _track_finished(
    settings: RunSettings, result: RunResult, directory: RunDirectory, reporter: Reporter
) -> None:
    """Give a run that was complete before to the trackers asked for; CSV files it has anyway."""
    if names := [name for name in settings.logger if name != "csv"]:
        with directory:
            trackers = GuardedTrackers(make_trackers(names, reporter.note), reporter.note)
            trackers.begin(result, directory.path)
            trackers.end(finished=True)


def _reporter(console: Console | None, quiet: bool) -> Reporter:
    return make_reporter(console or SafeConsole(stderr=True), quiet=quiet)


def _zero_shot_cache(
    settings: RunSettings, fingerprint: str, sequence: SequenceData, runs_dir: Path
) -> ZeroShotCache:
    benchmark = sequence.benchmark
    tests = [sequence.test_set(t).digest() for t in range(len(benchmark))]
    prompts = [[task.name, task.classes.prompts] for task in benchmark.tasks]
    identity = {
        "backbone": fingerprint,
        "benchmark": [benchmark.name, benchmark.version, benchmark.setting],
        "tests": tests,
        "prompts": prompts,
        "precision": settings.precision,
    }
    return ZeroShotCache(runs_dir / folder_name(benchmark.name), identity)
