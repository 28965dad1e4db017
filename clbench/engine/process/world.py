"""The processes that train together: each runs the whole sequence, on its share of every batch.

The first process leads: it alone holds the run directory, tests, and writes. The others follow its
decisions. Gradients are averaged by Lightning's DDP, so that the weights agree in every step.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from clbench.core.errors import ClbenchError
from clbench.core.settings import RunSettings

PATIENCE = timedelta(hours=24)
"""The followers wait while the leader tests."""
START = timedelta(minutes=10)
"""Loading weights and data may take followers so long."""
FOLLOWER = "clbench.launch.follow"


@dataclass(frozen=True)
class World:
    """One process among those that train together.

    Attributes:
        rank: its number; 0 leads.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process tests and writes."""
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """Mean over all processes."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag), device=device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def follow(self, numbers: list[int], device: torch.device) -> list[int]:
        """The leader's numbers, in every process."""
        if self.size == 1:
            return numbers
        shared = torch.tensor(numbers, device=device)
        dist.broadcast(shared, 0)
        return [int(number) for number in shared]

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()


ALONE = World()


@contextmanager
def leading(settings: RunSettings, runs_dir: Path, device: torch.device) -> Iterator[World]:
    """Start the followers that the settings ask for, and lead them.

    Args:
        settings: say how many processes train, and what.
        runs_dir: where run directories are.
        device: where this process computes.

    Raises:
        ClbenchError: the batch cannot be shared evenly.
    """
    size = settings.devices
    if size == 1:
        yield ALONE
        return
    if settings.train.batch_size % size:
        raise ClbenchError(
            f"train.batch_size={settings.train.batch_size} cannot be shared by devices={size}"
        )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    environments = [
        {**address, "RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
        for rank in range(size)
    ]
    job = {"settings": settings.model_dump(mode="json"), "runs_dir": str(runs_dir.resolve())}
    followers = [
        subprocess.Popen(
            [sys.executable, "-m", FOLLOWER],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for environment in environments[1:]
    ]
    try:
        for follower in followers:
            assert follower.stdin is not None
            follower.stdin.write(json.dumps(job))
            follower.stdin.close()
        with _joined(environments[0], device):
            yield World(0, size)
    finally:
        for follower in followers:
            try:
                follower.wait(timeout=30)
            except subprocess.TimeoutExpired:
                follower.kill()
                follower.wait()


@contextmanager
def following(device: torch.device) -> Iterator[World]:
    """Join the processes that the environment names."""
    environment = {name: os.environ[name] for name in ("RANK", "WORLD_SIZE")}
    with _joined(environment, device):
        yield World(int(environment["RANK"]), int(environment["WORLD_SIZE"]))


@contextmanager
def _joined(environment: dict[str, str], device: torch.device) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    backend = "nccl" if device.type == "cuda" else "gloo"
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = _meet(address, port, size, rank)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _meet(address: str, port: int, size: int, rank: int) -> Any:
    """The store through which the processes find each other.

    Raises:
        ClbenchError: one of them did not come.
    """
    try:
        store: Any = dist.TCPStore  # type: ignore[attr-defined]
        return store(address, port, size, rank == 0, timeout=START)
    except RuntimeError as error:
        raise ClbenchError(
            f"the {size} processes of devices={size} did not find each other: what went wrong "
            "is in log-1.txt of the run directory"
        ) from error
