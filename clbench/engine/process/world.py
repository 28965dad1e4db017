"""The processes that train together: each runs the whole sequence, on its share of every batch.

The first process leads: it alone holds the run directory, tests, and writes. The others follow its
decisions. Gradients are averaged by Lightning's DDP, so that the weights agree in every step.
Decisions go from CPU to CPU by gloo, so that no GPU waits for them; tensors of GPUs go by NCCL.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clbench.core.errors import ClbenchError
from clbench.core.foreign.names import printable
from clbench.core.redaction import redact
from clbench.core.settings import RunSettings
from clbench.engine.process.environment import Place, UnheardError
from clbench.engine.process.failures import KEPT, is_lost

PATIENCE = timedelta(hours=24)
"""The followers wait while the leader tests."""
START = timedelta(minutes=10)
"""Starting may take followers so long."""
SAVING = timedelta(seconds=30)
"""Followers that are stopped wait so long for the leader, which saves."""
FOLLOWER = "clbench.launch.follow"
FAILURE, FAREWELL = "failure", "farewell"
"""Keys of the store: what went wrong in a follower, and that the leader is leaving."""
_MEETINGS = count()
"""Runs of this process among those that somebody else started: all make the same, one by one."""


@dataclass(frozen=True)
class World:
    """One process among those that train together.

    Attributes:
        rank: its number; 0 leads.
        size: how many there are.
        starter: who started them; empty if the leader did.
    """

    rank: int = 0
    size: int = 1
    starter: str = ""

    @property
    def leads(self) -> bool:
        """Whether this process tests and writes."""
        return self.rank == 0

    def weight(self, images: int) -> float:
        """Factor of this process's mean loss, so that the mean over processes is the batch's mean.

        Args:
            images: in the whole batch, of which the process with number r has each `size`-th from
                the r-th on.

        Raises:
            ClbenchError: there are more processes than images.

        >>> [World(rank, 4).weight(10) for rank in range(4)]
        [1.2, 1.2, 0.8, 0.8]
        """
        if images < self.size:
            raise ClbenchError(
                f"devices={self.size} is more than the {images} images of a batch: use "
                f"--set devices={images} or less"
            )
        return self.size * len(range(self.rank, images, self.size)) / images

    def mean(self, value: Tensor) -> Tensor:
        """Mean over all processes."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each of the flags is set in any process."""
        if self.size == 1:
            return flags
        found = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(bool(flag) for flag in found)

    def told(self, value: Any) -> Any:
        """The leader's value, in every process; waits until all have come here."""
        if self.size == 1:
            return value
        shared = [value]
        dist.broadcast_object_list(shared, 0, device=torch.device("cpu"))
        return shared[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in every process."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def agree(self, module: nn.Module) -> None:
        """Take over the leader's parameters and buffers, bit for bit.

        Machines of different kinds find other singular vectors of the same weight.

        Raises:
            ClbenchError: a tensor has another shape or type than in the leader.
        """
        if self.size == 1:
            return
        own = dict([*module.named_parameters(), *module.named_buffers()])
        forms = {name: (tuple(t.shape), t.dtype) for name, t in own.items()}
        expected = self.told(forms)
        if differing := [n for n in {**expected, **forms} if expected.get(n) != forms.get(n)]:
            raise ClbenchError(f"{differing[0]} is not what it is in the leading process")
        for tensor in own.values():
            flat = tensor.detach().contiguous().view(-1)
            dist.broadcast(flat.view(torch.uint8), 0)  # backends do not know all types
            with torch.no_grad():
                tensor.copy_(flat.view(tensor.shape))


ALONE = World()


@contextmanager
def leading(settings: RunSettings, runs_dir: Path, device: torch.device) -> Iterator[World]:
    """Start the followers that the settings ask for on this machine, and lead them.

    Args:
        settings: say how many processes train, and what.
        runs_dir: where run directories are.
        device: where this process computes.

    Raises:
        ClbenchError: there are fewer GPUs, or a follower failed.
    """
    size = settings.devices
    if size == 1:
        yield ALONE
        return
    if device.type == "cuda" and size > torch.cuda.device_count():
        raise ClbenchError(
            f"devices={size}, but this machine has {torch.cuda.device_count()} CUDA devices: for "
            "those of several machines, start clbench with torchrun or srun"
        )
    store = _store("127.0.0.1", 0, hosts=True)  # at a port that is free
    places = [Place(rank, size, rank, "127.0.0.1", store.port, "") for rank in range(size)]
    job = {"settings": settings.model_dump(mode="json"), "runs_dir": str(runs_dir.resolve())}
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // size)))
    followers = [
        subprocess.Popen(
            [sys.executable, "-m", FOLLOWER],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in places[1:]
    ]
    try:
        for follower, place in zip(followers, places[1:], strict=True):
            assert follower.stdin is not None
            follower.stdin.write(json.dumps({**job, "place": asdict(place)}))
            follower.stdin.close()
        with _with_threads(int(threads)), joined(places[0], device, Path(), store) as world:
            yield world
    finally:
        for follower in followers:
            try:
                follower.wait(timeout=30)
            except subprocess.TimeoutExpired:
                follower.kill()
                follower.wait()


@contextmanager
def _with_threads(count: int) -> Iterator[None]:
    """While open, compute with so many threads: the processes share the cores."""
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)  # else Lightning takes all
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if variable is None:
            del os.environ["OMP_NUM_THREADS"]


@contextmanager
def joined(place: Place, device: torch.device, folder: Path, store: Any = None) -> Iterator[World]:
    """Join the other processes, and tell each other what goes wrong.

    A follower's failure becomes one of the leader, which is the only one to speak. What makes the
    leader fail ends the followers, silently.

    Args:
        place: of this process.
        device: where it computes; of several GPUs, that of its place.
        folder: the run directory, where a follower writes tracebacks.
        store: where the processes find each other, if this one has opened it already.

    Raises:
        ClbenchError: a process did not come, failed, or was killed.
    """
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    if device.type == "cuda":
        torch.cuda.set_device(_gpu(place))
    store = _meet(place, store)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=_prefixed("group", store),
        rank=place.rank,
        world_size=place.size,
        timeout=PATIENCE,
    )
    within = _followers_heard if place.rank == 0 else _leader_told
    with within(store, place, folder):
        yield World(place.rank, place.size, place.starter)


@contextmanager
def _followers_heard(store: Any, place: Place, _: Path) -> Iterator[None]:
    """In the leader: name the follower whose failure became one here."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        # torchrun stops all processes as soon as one has failed
        if not is_lost(error) and not isinstance(error, KeyboardInterrupt):
            raise
        if store.check([FAILURE]):
            rank, node, text = json.loads(store.get(FAILURE))
            said = f"process {rank} of {place.size}, on {node}, failed: {text}"
            raise ClbenchError(said) from error
        if not isinstance(error, RuntimeError):
            raise
        raise ClbenchError(f"one of the processes that train together died; {KEPT}") from error
    finally:
        dist.destroy_process_group()
        store.set(FAREWELL, "")


@contextmanager
def _leader_told(store: Any, place: Place, folder: Path) -> Iterator[None]:
    """In a follower: hand a failure over. The leader notices when this process ends."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        with suppress(RuntimeError):
            store.wait([FAREWELL], SAVING)
        raise
    except Exception as error:
        if is_lost(error):
            raise ClbenchError("the leading process has ended") from error
        text = _note(error, place, folder)
        failure = json.dumps([place.rank, socket.gethostname(), text])
        try:
            store.compare_set(FAILURE, "", failure)
        except RuntimeError:
            raise UnheardError(text) from error
        raise ClbenchError(text) from error
    finally:
        dist.destroy_process_group()


def _note(error: BaseException, place: Place, folder: Path) -> str:
    """Write a traceback beside the log of the run; returns what to tell."""
    log, text = f"log-{place.rank}.txt", str(error)
    if folder.is_dir():
        trace = "".join(traceback.format_exception(error))
        (folder / log).write_text(printable(redact(trace)), encoding="utf-8")
    if isinstance(error, ClbenchError):
        return text.replace("log.txt", log)
    return f"{type(error).__name__}: {' '.join(text.split())}; the traceback is in {log}"


def _gpu(place: Place) -> int:
    """The number of the GPU at a place.

    Raises:
        ClbenchError: there is none.
    """
    count = torch.cuda.device_count()
    if place.local < count:
        return place.local
    if count == 1 and place.starter == "srun":
        return 0  # Slurm shows each task the GPU that is its own
    raise ClbenchError(
        f"process {place.local} of this machine needs a GPU of its own, but only {count} can be "
        "seen: start fewer processes here"
    )


def _prefixed(prefix: str, store: Any) -> Any:
    """A store within a store."""
    kind: Any = dist.PrefixStore  # type: ignore[attr-defined]
    return kind(prefix, store)


def _store(address: str, port: int, hosts: bool) -> Any:
    """Open a store, or connect to one."""
    kind: Any = dist.TCPStore  # type: ignore[attr-defined]
    options = {"timeout": START, "wait_for_workers": False, "multi_tenant": port > 0}
    return kind(address, port, is_master=hosts, **options)


def _meet(place: Place, store: Any) -> Any:
    """The store through which the processes talk, as soon as all are there.

    Raises:
        ClbenchError: one of them did not come.
    """
    try:
        if store is None:
            hosts = place.rank == 0 and not place.hosted
            store = _store(place.address, place.port, hosts)
        if place.starter:
            store = _prefixed(f"clbench-{next(_MEETINGS)}", store)
        store.set(f"here-{place.rank}", "")
        store.wait([f"here-{rank}" for rank in range(place.size)], START)
    except RuntimeError as error:
        raise ClbenchError(
            f"the {place.size} processes of devices={place.size} did not find each other at "
            f"{place.address}:{place.port} (MASTER_ADDR, MASTER_PORT): "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
    return store
