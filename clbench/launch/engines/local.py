"""Cells on this machine, as many at a time as it has room for."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from clbench.launch.cells import Cell, Event, Outcome, Resources, outcome_of
from clbench.launch.engines.children import Children, wait_for
from clbench.launch.engines.machine import Machine, Room
from clbench.launch.engines.nursery import PROGRAM
from clbench.launch.records import Records, environment_of
from clbench.launch.standing import holder

PATIENCE = 60.0
"""Seconds after which the loop looks around although nothing has ended."""


@dataclass(frozen=True)
class _Place:
    """Where a cell runs."""

    cell: Cell
    threads: int
    devices: tuple[str, ...]

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{threads}, CUDA {', '.join(self.devices)}" if self.devices else threads


class Local:
    """Runs cells in processes of this machine.

    Args:
        records: where logs go.
        machine: what there is to share out; this machine by default.
        program: how a cell is started; clbench by default.
    """

    name = "local"
    stays = False

    def __init__(
        self,
        records: Records,
        machine: Machine | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.records = records
        self.machine = machine or Machine.here()
        self.program = tuple(program)

    def fitted(self, cells: Sequence[Cell], resources: Resources) -> Resources:
        """As many cells at a time as cores, devices and memory allow; the cores are shared out."""
        return self.machine.share_out(len(cells), resources)

    def run(self, cells: Sequence[Cell], resources: Resources) -> Generator[Event]:
        """See `Launcher.run`."""
        given = self.fitted(cells, resources)
        jobs, cpus, gpus = given.jobs or 1, given.cpus or 1, given.gpus or 0.0
        cores = max(self.machine.cores, jobs * cpus)  # more than there are, if the user says so
        room = Room(cores, dict.fromkeys(self.machine.devices, 1.0))
        waiting, running = deque(cells), dict[str, _Place]()
        nurseries: dict[int, Children] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    if found := holder(waiting[0].path):
                        yield Event(waiting.popleft(), Outcome.ELSEWHERE, reason=found)
                        continue
                    threads = min(waiting[0].threads or cpus, cores)
                    if (devices := room.take(threads, gpus)) is None:
                        break
                    place = _Place(waiting.popleft(), threads, devices)
                    running[place.cell.key] = place
                    self._start(place, nurseries, shared=jobs > 1)
                    yield Event(place.cell, where=str(place))
                for name, code in wait_for(nurseries.values(), PATIENCE):
                    place = running.pop(name)
                    room.give_back(place.threads, gpus, place.devices)
                    outcome = outcome_of(place.cell, code, bool(holder(place.cell.path)))
                    yield Event(place.cell, outcome, code)
        finally:
            for nursery in nurseries.values():
                nursery.hang_up()
            for nursery in nurseries.values():
                nursery.wait()

    def farewell(self) -> str:
        """See `Launcher.farewell`."""
        return ""

    def _start(self, place: _Place, nurseries: dict[int, Children], *, shared: bool) -> None:
        """Start a cell.

        The first import settles how many threads there are, so each number has its own nursery.
        """
        environment = environment_of(self.name, place.threads, shared)
        nursery = nurseries.get(place.threads)
        if nursery is None or not nursery.alive:
            warm = sys.platform == "linux" and self.program == PROGRAM  # forks fail on macOS
            nursery = nurseries[place.threads] = Children(environment, warm=warm)
        if self.machine.devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(place.devices)
        command = (*self.program, *place.cell.command)
        nursery.start(place.cell.key, command, environment, self.records.log(place.cell))
