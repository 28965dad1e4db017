"""What a machine has to share out among cells, and what is free of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from clbench.core.errors import ClbenchError
from clbench.launch.cells import Resources


@dataclass(frozen=True)
class Machine:
    """A machine, as far as this process may use it.

    Attributes:
        cores: number of them.
        memory: bytes.
        devices: CUDA devices, named as in ``CUDA_VISIBLE_DEVICES``.
    """

    cores: int
    memory: int
    devices: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Machine:
        """This machine."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        with suppress(OSError, ValueError):  # a container's share; "max" is no number
            memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
        return cls(usable_cores(), memory, _devices())

    def share_out(self, cells: int, asked: Resources) -> Resources:
        """How many cells run at a time, and what each of them gets.

        As many as there are cores, devices and memory for; the cores are shared out among them.

        Args:
            cells: how many there are altogether.
            asked: what the user or the benchmark says.

        Raises:
            ClbenchError: a cell needs more devices than there are.
        """
        gpus = asked.gpus if asked.gpus is not None else float(bool(self.devices))
        most = [cells, self.cores // min(asked.cpus or 1, self.cores)]
        if gpus:
            most.append(self._cells_by_device(gpus))
        if asked.memory:
            most.append(self.memory // asked.memory)
        jobs = asked.jobs or max(1, min(most))
        if gpus and jobs > most[2]:
            raise ClbenchError(
                f"--jobs {jobs} with --gpus {gpus:g}, but {len(self.devices)} CUDA devices have "
                f"room for {most[2]}: let runs share devices, for example with --gpus 0.5"
            )
        cpus = min(asked.cpus, self.cores) if asked.cpus else max(1, self.cores // jobs)
        return Resources(jobs, cpus, gpus, asked.memory, asked.time)

    def _cells_by_device(self, gpus: float) -> int:
        count = len(self.devices)
        fitting = count * int(1 / gpus + 1e-9) if gpus < 1 else count // round(gpus)
        if fitting == 0:
            raise ClbenchError(f"--gpus {gpus:g}, but this machine has {count} CUDA devices")
        return fitting


@dataclass
class Room:
    """What is free of a machine while cells run.

    Attributes:
        cores: free cores.
        shares: free part of each device.
    """

    cores: int
    shares: dict[str, float] = field(default_factory=dict)

    def take(self, cores: int, gpus: float) -> tuple[str, ...] | None:
        """Devices for one more cell; None if there is no room for it."""
        part, wanted = min(gpus, 1.0), (round(gpus) if gpus > 1 else int(gpus > 0))
        free = [name for name, share in self.shares.items() if share >= part - 1e-9]
        if cores > self.cores or len(free) < wanted:
            return None
        # The fullest that fits: what is left over stays in one piece.
        chosen = tuple(sorted(free, key=lambda name: self.shares[name])[:wanted])
        self._change(-cores, chosen, -part)
        return chosen

    def give_back(self, cores: int, gpus: float, devices: Sequence[str]) -> None:
        """A cell has ended."""
        self._change(cores, devices, min(gpus, 1.0))

    def _change(self, cores: int, devices: Sequence[str], share: float) -> None:
        self.cores += cores
        for name in devices:
            self.shares[name] += share


def usable_cores() -> int:
    """Cores on which this process may run, no more than its container pays for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(OSError, ValueError):  # "max" is no number
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores or 1, max(1, int(quota) // int(period)))
    return cores or 1


def _devices() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    import torch

    return tuple(map(str, range(torch.cuda.device_count())))
