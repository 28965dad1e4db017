"""Cells as tasks of a Ray cluster, or of a Ray that is started on this machine.

Every task gets the command line of a cell and starts it through a nursery, so that the run ends
when its worker does. Workers and nodes may die: the cell is then started again and goes on from its
last checkpoint. A node that does not see the folder of the runs works in a folder of its own, and
the files go to and fro through a depot on the machine that drives.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from clbench.core.errors import ClbenchError
from clbench.launch.cells import Cell, Event, Outcome, Resources, outcome_of
from clbench.launch.engines.machine import Machine
from clbench.launch.engines.nursery import PROGRAM, import_path
from clbench.launch.engines.tasks import Depot, Job, attempt
from clbench.launch.records import FOLDER, Records, environment_of
from clbench.launch.standing import holder

PATIENCE = 2.0
"""Seconds between two looks at the tasks."""
GRACE = 120.0
"""Seconds that runs get to save when the driver is interrupted."""
AUTHENTICATION = "RAY_AUTH_MODE"
"""Variable that says whether a process shows a token to others and asks them for it."""
STORE = 100_000_000
"""Bytes of the object store of a Ray that is started here: little goes through it."""


class Ray:
    """Runs cells as tasks of Ray.

    Args:
        records: where logs go.
        address: of a cluster; without one, Ray is started on this machine.
        program: how a cell is started; clbench by default.

    Raises:
        ClbenchError: Ray is not installed, or there is no cluster.
    """

    name = "ray"
    stays = False

    def __init__(
        self, records: Records, address: str | None = None, program: Sequence[str] = PROGRAM
    ) -> None:
        self.records = records
        self.program = tuple(program)
        self.ray = _connected(address)

    def fitted(self, cells: Sequence[Cell], resources: Resources) -> Resources:
        """One thread per cell, and a device where there are some, if nothing else is said.

        How many run at a time is Ray's to decide, by what its nodes have.
        """
        there = self.ray.cluster_resources()
        gpus = resources.gpus if resources.gpus is not None else float(there.get("GPU", 0) > 0)
        given = replace(resources, cpus=resources.cpus or 1, gpus=gpus)
        for what, asked, key in (("--cpus", given.cpus, "CPU"), ("--gpus", given.gpus, "GPU")):
            if asked and asked > there.get(key, 0):
                raise ClbenchError(
                    f"{what} {asked:g}, but the Ray cluster has {there.get(key, 0):g} of them: add "
                    "nodes, or ask for less"
                )
        most = [int(there["CPU"] // (given.cpus or 1)), len(cells)]
        most += [int(there["GPU"] / gpus)] if gpus else []
        return replace(given, jobs=resources.jobs or max(1, min(most)))

    def run(self, cells: Sequence[Cell], resources: Resources) -> Generator[Event]:
        """See `Launcher.run`."""
        given = self.fitted(cells, resources)
        waiting, running = list(reversed(cells)), dict[Any, Cell]()
        with Token(self.records.runs_dir) as token:
            depot = self.ray.remote(Depot).options(**_here(self.ray)).remote()
            task = self.ray.remote(attempt)
            try:
                while waiting or running:
                    while waiting and len(running) < (given.jobs or 1):
                        cell = waiting.pop()
                        if found := holder(cell.path):
                            yield Event(cell, Outcome.ELSEWHERE, reason=found)
                            continue
                        job = self._job(cell, given, token)
                        running[task.options(**_options(job, given)).remote(job, depot)] = cell
                        yield Event(cell, where="Ray")
                    yield from self._ended(running)
            finally:
                self._stop(running, depot)

    def farewell(self) -> str:
        """See `Launcher.farewell`."""
        return ""

    def _job(self, cell: Cell, given: Resources, token: Path) -> Job:
        threads = cell.threads or given.cpus or 1
        return Job(
            key=cell.key,
            command=[*self.program, *cell.command],
            environment=environment_of(self.name, threads, shared=True),
            folder=str(Path.cwd()),
            runs_dir=str(self.records.runs_dir),
            home=str(self.records.runs_dir.resolve()),
            log=str(self.records.log(cell).resolve()),
            token=str(token),
            threads=threads,
            warm=self.program == PROGRAM,
        )

    def _ended(self, running: dict[Any, Cell]) -> Iterator[Event]:
        """What has ended since the last look."""
        if not running:
            return
        done, _ = self.ray.wait(list(running), num_returns=1, timeout=PATIENCE)
        for reference in done:
            cell = running.pop(reference)
            try:
                code = self.ray.get(reference)
            except self.ray.exceptions.OutOfMemoryError:
                yield Event(cell, Outcome.FAILED, None, "its node ran out of memory (--memory)")
            except self.ray.exceptions.RayTaskError as error:
                yield Event(cell, Outcome.FAILED, None, f"in its Ray task: {error.cause!r}")
            except self.ray.exceptions.RayError as error:  # the machine's fault
                yield Event(cell, Outcome.PREEMPTED, None, type(error).__name__)
            else:
                yield Event(cell, outcome_of(cell, code, bool(holder(cell.path))), code)

    def _stop(self, running: Mapping[Any, Cell], depot: Any) -> None:
        """Ask what runs to save and end, and wait for it; the rest is never started."""
        if not running:
            return
        with suppress(self.ray.exceptions.RayError):
            self.ray.get(depot.stop.remote())
        _, left = self.ray.wait(list(running), num_returns=len(running), timeout=GRACE)
        for reference in left:  # one that has just ended must not be cancelled: Ray would abort
            self.ray.cancel(reference, force=True)


def _options(job: Job, given: Resources) -> dict[str, Any]:
    """What Ray sets aside for a task, and that it is not repeated behind the driver's back."""
    memory = {"memory": given.memory} if given.memory else {}
    return {"num_cpus": job.threads, "num_gpus": given.gpus or 0, "max_retries": 0, **memory}


def _here(ray: Any) -> dict[str, Any]:
    """Options of an actor that must be on this machine, and needs nothing."""
    strategies = ray.util.scheduling_strategies
    node = ray.get_runtime_context().get_node_id()
    strategy = strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return {"num_cpus": 0, "scheduling_strategy": strategy}


class Token:
    """A file that tells a node whether it sees the folder of the runs."""

    def __init__(self, runs_dir: Path) -> None:
        self.path = runs_dir.resolve() / FOLDER / f"token-{secrets.token_hex(8)}"

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.path.name)
        return self.path

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)


def _connected(address: str | None) -> Any:
    """The module `ray`, connected.

    Raises:
        ClbenchError: it is not installed, there is no cluster at the address, or it wants a token.
    """
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ClbenchError(
            "--launcher ray needs Ray: install it with pip install 'clbench[ray]'"
        ) from error
    if ray.is_initialized():
        return ray
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": {"PYTHONPATH": import_path()}},
    }
    try:
        if address is not None:
            _knock(ray, address)
            ray.init(address=address, **options)
        else:
            machine = Machine.here()
            ray.init(
                address="local",  # otherwise a cluster that happens to run here is connected to
                num_cpus=machine.cores,
                num_gpus=len(machine.devices),
                include_dashboard=False,
                object_store_memory=STORE,
                **options,
            )
    except Exception as error:  # Ray raises the class itself where a node does not start in time
        where = address or "this machine"
        if isinstance(
            error, getattr(ray.exceptions, "AuthenticationError", ())
        ):  # from Ray 2.52 on
            raise ClbenchError(_not_let_in(where)) from error
        reason = " ".join(str(error).split())
        raise ClbenchError(f"no Ray cluster at {where}: {reason}") from error
    return ray


def _knock(ray: Any, address: str) -> None:
    """Ask a cluster for its number: `ray.init` tries for 20 s, and does not say what it missed.

    Raises:
        Exception: nothing answers there, or it wants a token that this process does not have.
    """
    if re.fullmatch(r"[\w.-]+:\d+", address) is None:  # "auto", or of a client: for Ray to resolve
        return
    if os.environ.get(AUTHENTICATION) == "token":  # without one, the process would abort
        from ray._private.authentication import authentication_token_setup

        authentication_token_setup.ensure_token_if_auth_enabled(create_token_if_missing=False)
    ray._raylet.GcsClient(address=address)


def _not_let_in(where: str) -> str:
    if os.environ.get(AUTHENTICATION) == "token":
        cause = "this machine has none, or another one than the cluster's first machine"
    else:
        cause = f"{AUTHENTICATION}=token is not set here"
    return (
        f"the Ray cluster at {where} asks for a token: {cause}; on every machine, let "
        f"~/.ray/auth_token be the same file, and export {AUTHENTICATION}=token before `ray start` "
        "and before clbench"
    )
