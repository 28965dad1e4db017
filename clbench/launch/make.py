"""From planned runs to results: what is complete is reused, a launcher makes the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from clbench import registry
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.foreign.console import SafeConsole, print_line
from clbench.core.results.result import FILE_NAME, RunResult
from clbench.core.settings import RunSettings
from clbench.engine.process.environment import place
from clbench.engine.rundir.directory import RunDirectory
from clbench.engine.rundir.provenance import Inputs
from clbench.inputs import unmeasured
from clbench.launch.cells import Cell, Event, Launcher, Outcome, Resources
from clbench.launch.driving import RETRIES, Drive, Failure, Watcher, told_once
from clbench.launch.engines.local import Local
from clbench.launch.engines.ray import Ray
from clbench.launch.engines.slurm import Slurm
from clbench.launch.forecast import trials
from clbench.launch.forecast.estimates import Costs, Estimate, Forecast
from clbench.launch.grid import as_begun, make_cells, result_of
from clbench.launch.plan import Planned
from clbench.launch.quantities import parse_resources
from clbench.launch.records import Records
from clbench.launch.view import Tally, make_view


@dataclass(frozen=True)
class Wanted:
    """How runs are to be made.

    Attributes:
        launcher: ``local``, ``ray`` or ``slurm``.
        resources: what the user asks for.
        retries: how often a run that failed is tried again.
        options: what only one launcher understands.
    """

    launcher: str = "local"
    resources: Resources = field(default_factory=Resources)
    retries: int = RETRIES
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What came of a grid.

    Attributes:
        results: of the runs that are complete, in the order of the grid.
        failures: the runs that could not be made.
    """

    results: list[RunResult]
    failures: list[Failure]

    @property
    def problems(self) -> list[str]:
        """A text for everything that kept runs from being made, each once."""
        return told_once(self.failures)


COMPLETE, PARTIAL, MISSING = KNOWN = ("complete", "partial", "missing")
OVER = (Outcome.DONE, Outcome.DIVERGED)
"""Outcomes after which a run directory holds all that there will be."""
Ended = Callable[[RunSettings, Outcome], None]
"""Is told of a run that is over."""
LAUNCHERS: dict[str, Callable[[Records, Mapping[str, Any]], Launcher]] = {
    "local": lambda records, options: Local(records),
    "ray": lambda records, options: Ray(records, options.get("address")),
    "slurm": lambda records, options: Slurm(records, options.get("sbatch", ())),
}


class Grid:
    """Planned runs in a folder.

    Args:
        planned: validated settings.
        runs_dir: folder of all runs.
        wanted: how they are to be made.

    Raises:
        ClbenchError: there is no such launcher, or not what is asked of it.
    """

    def __init__(self, planned: Sequence[Planned], runs_dir: Path, wanted: Wanted) -> None:
        self.runs_dir = runs_dir
        self.records = Records(runs_dir)
        pairs = make_cells(planned, runs_dir)
        self.cells = [cell for cell, _ in pairs]
        self._planned = {cell.key: plan for cell, plan in pairs}
        if wanted.launcher not in LAUNCHERS:
            raise unknown_name("launcher", wanted.launcher, LAUNCHERS)
        self.retries = wanted.retries
        self.launcher = LAUNCHERS[wanted.launcher](self.records, wanted.options)
        asked = wanted.resources.or_else(self._usual())
        self.resources = self.launcher.fitted(self.cells, asked)

    def make(
        self,
        console: Console,
        *,
        fresh: bool = False,
        probed: bool = False,
        quiet: bool = False,
        ended: Ended | None = None,
    ) -> Made:
        """Make what is missing.

        Args:
            console: where progress is shown.
            fresh: start all runs anew and put earlier ones aside.
            probed: do so with complete runs that lack a probe that is asked for.
            quiet: show no progress.
            ended: is told of every run that is complete or has diverged, as soon as it is known.

        Raises:
            ClbenchError: `fresh`, and another process makes one of the runs; or this process is one
                of several.
        """
        if place() is not None:
            raise ClbenchError(
                "compare and sweep start the processes of their runs themselves: start them once, "
                "without torchrun or srun"
            )
        told = SafeConsole(quiet=True) if quiet else console
        if fresh:
            self._put_aside(self.cells, told)
        ended = ended or (lambda settings, outcome: None)
        states = self._states()
        if probed:
            unprobed = [c for c in self.cells if states[c.key] == COMPLETE and self._lacks(c)]
            self._put_aside(unprobed, told)
            states |= dict.fromkeys((cell.key for cell in unprobed), MISSING)
        left = [cell for cell in self.cells if self._to_do(cell, states[cell.key])]
        failures = [
            Failure(cell, Outcome.MISTAKE, "", (states[cell.key],), self.records.log(cell))
            for cell in self.cells
            if states[cell.key] not in KNOWN
        ]
        for cell in self.cells:
            if states[cell.key] == COMPLETE:
                ended(self._planned[cell.key][0], Outcome.DONE)
        if left:
            failures += self._launch(left, console, quiet, ended)
        done = [cell for cell in self.cells if states[cell.key] in KNOWN and cell.finished()]
        results = [RunResult.load(cell.path) for cell in done]
        if not quiet:
            self._note_unmeasured(done, results, console)
        return Made(results, failures)

    def hand_over(self, *, fresh: bool = False) -> str:
        """Have what is missing made by a launcher whose runs stay, without waiting for it.

        Args:
            fresh: start all runs anew and put earlier ones aside.

        Returns:
            What the user should know.

        Raises:
            ClbenchError: runs of this launcher do not stay, or it refuses them.
        """
        if not isinstance(self.launcher, Slurm):
            raise ClbenchError("--detach works with --launcher slurm: other runs need their driver")
        if fresh:
            self._put_aside(self.cells, SafeConsole(stderr=True))
        queue, states = self.launcher.queue(), self._states()
        left = [
            as_begun(cell)
            for cell in self.cells
            if self._to_do(cell, states[cell.key]) and cell.key not in queue
        ]
        self.records.save_plan(self.cells, self.launcher.name, self.resources)
        self.launcher.submit(left, self.resources)
        count = f"{len(left)} run{'s' * (len(left) != 1)} submitted"
        return "; ".join(filter(None, (count, self.launcher.farewell())))

    def forecast(self, trial: Console | None = None) -> Forecast:
        """What is left to do, and what it will cost.

        Args:
            trial: where nothing is known, make smoke runs to tell, with progress shown there.
        """
        states = list(self._states().values())
        costs = Costs([self.runs_dir])
        known = [
            None if state == COMPLETE else costs.of(self._planned[cell.key][0])
            for cell, state in zip(self.cells, states, strict=True)
        ]
        if trial is not None:
            known = self._tried(states, known, trial)
        return Forecast(self.cells, states, known, self.resources)

    def _tried(
        self, states: Sequence[str], known: Sequence[Estimate | None], console: Console
    ) -> list[Estimate | None]:
        """Costs with those that smoke runs tell, made here one by one, where nothing was known."""
        unknown = {
            cell.key: self._planned[cell.key]
            for cell, state, cost in zip(self.cells, states, known, strict=True)
            if cost is None and state in (PARTIAL, MISSING)
        }
        short = [trials.shortened(plan) for plan in trials.kinds(list(unknown.values()))]
        alone = Wanted(resources=Resources(jobs=1, cpus=self.resources.cpus))
        Grid(short, trials.folder(self.runs_dir), alone).make(console)
        sizes: dict[str, trials.Sizes] = {}
        found = list(known)
        for i, cell in enumerate(self.cells):
            if (plan := unknown.get(cell.key)) is not None:
                place = f"{plan[0].benchmark} {plan[0].backbone}"
                if place not in sizes:
                    sizes[place] = trials.Sizes.of(plan[0])
                found[i] = trials.estimate(plan, self.runs_dir, sizes[place])
        return found

    def _note_unmeasured(
        self, cells: Sequence[Cell], results: Sequence[RunResult], console: Console
    ) -> None:
        """Say which complete runs lack probes that are asked for, each kind of lack once."""
        lacking = Counter(
            unmeasured(self._planned[cell.key][0], result)
            for cell, result in zip(cells, results, strict=True)
        )
        for text, count in lacking.items():
            if text is not None:
                line = f"{count} of {len(cells)} runs: {text}"
                print_line(console, line)

    def _lacks(self, cell: Cell) -> bool:
        """Whether a complete run lacks a probe that is asked for."""
        return unmeasured(self._planned[cell.key][0], RunResult.load(cell.path)) is not None

    def _put_aside(self, cells: Sequence[Cell], console: Console) -> None:
        for cell in cells:
            path = RunDirectory(cell.path, self.runs_dir).put_aside()
            if path is not None:
                text = f"the earlier run is now in {path}"
                print_line(console, text)

    def _launch(
        self, cells: list[Cell], console: Console, quiet: bool, ended: Ended
    ) -> list[Failure]:
        done = len(self.cells) - len(cells)
        tally = Tally(len(self.cells), done, self.resources.jobs or 1)
        self.records.save_plan(self.cells, self.launcher.name, self.resources)
        with make_view(console, tally, quiet=quiet) as view:
            watcher = _Telling(
                view, lambda cell, outcome: ended(self._planned[cell.key][0], outcome)
            )
            drive = Drive(self.launcher, self.records, self.retries, watcher)
            try:
                failures = drive.run([as_begun(cell) for cell in cells], self.resources)
            except KeyboardInterrupt:
                if text := self.launcher.farewell():
                    print_line(console, text)
                raise
        if not failures:
            self.records.drop_plan(self.cells)
        return failures

    def _states(self) -> dict[str, str]:
        """How it stands with every cell, by key; weights and images are looked at once."""
        known: dict[str, Inputs] = {}
        return {cell.key: self._state(cell, known) for cell in self.cells}

    def _state(self, cell: Cell, known: dict[str, Inputs]) -> str:
        """``complete``, ``partial``, ``missing``, or what is wrong with the run that is there."""
        try:
            result = result_of(cell, self._planned[cell.key], known)
        except ClbenchError as error:
            return str(error)
        if result is None:
            return PARTIAL if (cell.path / FILE_NAME).exists() else MISSING
        return COMPLETE

    def _to_do(self, cell: Cell, state: str) -> bool:
        """Whether a process is needed: also to give a complete run to another tracker."""
        tracked = set(self._planned[cell.key][0].logger) - {"csv"}
        return state in KNOWN and (state != COMPLETE or bool(tracked))

    def _usual(self) -> Resources:
        """What the recipes of the benchmarks ask for; the most of each kind."""
        most: dict[str, Any] = {}
        for name in dict.fromkeys(cell.benchmark for cell in self.cells):
            recipe = asdict(parse_resources(registry.benchmark(name).resources))
            for key, value in recipe.items():
                most[key] = max((v for v in (most.get(key), value) if v is not None), default=None)
        return Resources(**most)


@dataclass(frozen=True)
class _Telling:
    """A watcher that passes everything on, and what is over to somebody else, too."""

    view: Watcher
    ended: Callable[[Cell, Outcome], None]

    def event(self, event: Event, left: int) -> None:
        self.view.event(event, left)
        if event.outcome is not None and event.outcome in OVER:
            self.ended(event.cell, event.outcome)
