"""What the environment says of processes that somebody else started to train together.

`torchrun` and Lightning set ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``, and ``RANK`` or
``LOCAL_RANK``; Slurm's `srun` numbers the tasks of a step. Nothing else is looked at: that `srun`
is installed, or that a batch script runs, says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from clbench.core.errors import ClbenchError


class UnheardError(ClbenchError):
    """A failure of a process that does not lead, of which the one that leads could not be told."""


@dataclass(frozen=True)
class Place:
    """This process's place among those that were started together.

    Attributes:
        rank: its number; 0 leads.
        size: how many there are, two at least.
        local: its number on this machine.
        address: where the first process can be reached.
        port: where that one listens.
        starter: ``torchrun``, ``srun`` or ``lightning``.
        hosted: whether `torchrun` already listens there.
    """

    rank: int
    size: int
    local: int
    address: str
    port: int
    starter: str
    hosted: bool = False

    def require(self, devices: int) -> None:
        """Check that as many processes were started as the settings ask for.

        Raises:
            ClbenchError: names both numbers and the cure.
        """
        if self.size != devices:
            count = "one process" if devices == 1 else f"{devices} processes"
            raise ClbenchError(
                f"{self.starter} started {self.size} processes (WORLD_SIZE), but devices={devices}:"
                f" use --set devices={self.size}, or start {count}"
            )


def place(environment: Mapping[str, str] | None = None) -> Place | None:
    """The place of this process; None if it was started alone.

    Args:
        environment: the variables, those of the process by default.

    Raises:
        ClbenchError: the variables contradict each other, or some are missing.
    """
    variables = os.environ if environment is None else environment
    if _number(variables, "WORLD_SIZE", 1) > 1 and {"RANK", "LOCAL_RANK"} & variables.keys():
        found = _of_torch(variables)
    elif _number(variables, "SLURM_STEP_NUM_TASKS", 1) > 1 and "SLURM_PROCID" in variables:
        found = _of_slurm(variables)
    else:
        return None
    if not 0 <= found.rank < found.size:
        raise ClbenchError(
            f"the environment calls this process number {found.rank} of {found.size}"
        )
    return found


def alone() -> bool:
    """Whether nobody started this process together with others."""
    try:
        return place() is None
    except ClbenchError:
        return False


def follows() -> bool:
    """Whether another of several processes writes and prints."""
    try:
        found = place()
    except ClbenchError:
        return False
    return found is not None and found.rank > 0


def _of_torch(variables: Mapping[str, str]) -> Place:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not variables.get(name)]
    if "RANK" not in variables and _number(variables, "NODE_RANK", 0):
        missing.append("RANK")  # Lightning does not say how many processes other nodes have
    if missing:
        raise ClbenchError(
            f"WORLD_SIZE={variables['WORLD_SIZE']}, but {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} not set: start clbench with torchrun or srun"
        )
    local = _number(variables, "LOCAL_RANK", 0)
    elastic = "TORCHELASTIC_RUN_ID" in variables
    return Place(
        rank=_number(variables, "RANK", local),
        size=_number(variables, "WORLD_SIZE", 1),
        local=local,
        address=variables["MASTER_ADDR"],
        port=_number(variables, "MASTER_PORT", 0),
        starter="torchrun" if elastic or "RANK" in variables else "lightning",
        hosted=variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _of_slurm(variables: Mapping[str, str]) -> Place:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    nodes = variables.get("SLURM_STEP_NODELIST", "127.0.0.1")
    # Steps of the same and of other jobs may share a machine.
    job, step = _number(variables, "SLURM_JOB_ID", 0), _number(variables, "SLURM_STEP_ID", 0)
    return Place(
        rank=_number(variables, "SLURM_PROCID", 0),
        size=_number(variables, "SLURM_STEP_NUM_TASKS", 1),
        local=_number(variables, "SLURM_LOCALID", 0),
        address=variables.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes),
        port=_number(variables, "MASTER_PORT", 15_000 + (31 * job + step) % 15_000),
        starter="srun",
    )


def _number(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name)
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise ClbenchError(f"the variable {name} is no number: {text!r}") from None
