"""A machine is shared out among runs and never promised twice."""

from __future__ import annotations

import pytest

from clbench.core.errors import ClbenchError
from clbench.launch.cells import Resources
from clbench.launch.engines.machine import Machine, Room

GB = 2**30


@pytest.mark.parametrize(
    ("cells", "asked", "jobs", "cpus"),
    [
        (18, Resources(), 8, 1),
        (3, Resources(), 3, 2),
        (1, Resources(), 1, 8),
        (18, Resources(cpus=3), 2, 3),
        (18, Resources(memory=5 * GB), 3, 2),
        (18, Resources(memory=99 * GB), 1, 8),
        (18, Resources(jobs=2), 2, 4),
        (18, Resources(cpus=64), 1, 8),
    ],
)
def test_cores_and_memory_are_shared_out(
    cells: int, asked: Resources, jobs: int, cpus: int
) -> None:
    machine = Machine(8, 16 * GB)
    given = machine.share_out(cells, asked)
    assert (given.jobs, given.cpus, given.gpus) == (jobs, cpus, 0.0)
    assert jobs * cpus <= machine.cores


@pytest.mark.parametrize(
    ("asked", "jobs", "cpus", "gpus"),
    [
        (Resources(), 4, 4, 1.0),
        (Resources(gpus=0.5), 8, 2, 0.5),
        (Resources(gpus=0.3), 12, 1, 0.3),
        (Resources(gpus=2), 2, 8, 2),
        (Resources(gpus=0), 16, 1, 0),
    ],
)
def test_devices_are_shared_out(asked: Resources, jobs: int, cpus: int, gpus: float) -> None:
    machine = Machine(16, 64 * GB, ("0", "1", "2", "3"))
    given = machine.share_out(100, asked)
    assert (given.jobs, given.cpus, given.gpus) == (jobs, cpus, gpus)


def test_more_than_there_is_gets_refused() -> None:
    machine = Machine(8, GB, ("0",))
    with pytest.raises(ClbenchError, match="--gpus 2, but this machine has 1"):
        machine.share_out(1, Resources(gpus=2))
    with pytest.raises(ClbenchError, match="for example with --gpus"):
        machine.share_out(9, Resources(jobs=2))


def test_room_is_taken_and_given_back() -> None:
    room = Room(4, {"a": 1.0, "b": 1.0})
    assert room.take(1, 0.5) == ("a",)
    assert room.take(1, 0.5) == ("a",), "what is left over stays in one piece"
    assert room.take(1, 1.0) == ("b",)
    assert room.take(1, 0.5) is None, "no device is free"
    assert room.cores == 1
    room.give_back(1, 0.5, ("a",))
    assert room.take(3, 0.5) is None, "no cores are free"
    assert room.take(2, 0.5) == ("a",)
    assert Room(2, {"a": 1.0, "b": 1.0}).take(1, 2) == ("a", "b")
