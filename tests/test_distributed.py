"""Real processes that train together: the numbers of one, whoever starts, stops or kills them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Sampler

from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from clbench.datamodules.sequence import Share, StepSampler
from clbench.engine.rundir.checkpoints import CheckpointStore
from tests import steps_child
from tests.launch.engines.slurm_cluster import Cluster, require_slurm
from tests.small_runs import write_tasks

CLBENCH = ["-m", "clbench"]
PYTHON = [sys.executable]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
TWO = [*TORCHRUN, "--nproc-per-node", "2"]
STEPS = 12
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}


def test_shares_are_the_batch() -> None:
    whole = StepSampler(10, 4, 5, seed=1)
    shares = [list(Share(whole, rank, 2)) for rank in range(2)]
    assert len(Share(whole, 0, 2)) == 5
    for batch, first, second in zip(whole, *shares, strict=True):
        assert first == batch[::2]
        assert second == batch[1::2]
    positions: Any = [[(0, 7), (1, 3)]]
    sampler: Sampler[Any] = positions
    assert list(Share(sampler, 1, 2)) == [[(1, 3)]]


def test_one_process_has_the_hash_of_runs_before_there_could_be_two() -> None:
    one, two = RunSettings(), RunSettings.model_validate({"devices": 2})
    assert one.fingerprint() != two.fingerprint()
    assert one.fingerprint() == RunSettings.model_validate({"devices": 1}).fingerprint()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks", tasks=4, classes=3)


@pytest.fixture(scope="module")
def words(tasks: Path) -> Callable[..., list[str]]:
    """The arguments of a short run with 5 images per step: whose shares are 3 and 2."""

    def make(runs: Path, *more: str, method: str = "lora", devices: int = 2) -> list[str]:
        settings: dict[str, object] = {
            "data_root": tasks.parent / "cache",
            "device": "cpu",
            "devices": devices,
            "train.steps": STEPS,
            "train.batch_size": 5,
            "train.lr": 1e-3,
        }
        if method == "lora":
            settings["method.dropout"] = 0
        parts = [f"--set={key}={value}" for key, value in settings.items()]
        where = ["--benchmark", f"folder:{tasks}", "--backbone", "mini", "--runs-dir", str(runs)]
        return ["run", "--method", method, *where, *parts, *more]

    return make


@pytest.fixture(scope="module")
def undisturbed(words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose two processes clbench started itself."""
    runs = tmp_path_factory.mktemp("undisturbed")
    ended(start([*PYTHON, *CLBENCH, *words(runs)]))
    return runs


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command], **{"env": ENVIRONMENT, **pipes, **options})


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return out, errors


def found(runs: Path) -> tuple[RunResult, list[dict[str, Any]]]:
    """The result of the only run there, and its losses."""
    (file,) = runs.glob("*/*/*/result.json")
    lines = (file.parent / "metrics.jsonl").read_text().splitlines()
    return RunResult.load(file), [json.loads(line) for line in lines]


def same(runs: Path, others: Path) -> RunResult:
    """The result of a run, which must be that of another one bit for bit."""
    (result, losses), (expected, expected_losses) = found(runs), found(others)
    assert result.accuracy == expected.accuracy
    assert losses == expected_losses
    return result


def said(errors: str) -> list[str]:
    """What clbench itself says; torchrun adds a report of its own."""
    assert "clbench/engine" not in errors, "no traceback of a run"
    return [line for line in errors.splitlines() if line.startswith("clbench:")]


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.slow
def test_every_step_of_two_processes_is_that_of_one(tasks: Path, tmp_path: Path) -> None:
    one = {
        name: steps_child.trained(name, tasks, tmp_path / "one", 1) for name in steps_child.METHODS
    }
    factors, out = tmp_path / "factors.pt", tmp_path / "two.pt"
    torch.save(one["nusa"]["factors"], factors)
    places = [str(tasks), str(tmp_path / "two"), str(out), "2", str(factors)]
    ended(start([*TWO, "-m", "tests.steps_child", *places]))
    two = torch.load(out)

    def differences(name: str, other: dict[str, Any]) -> list[float]:
        pairs = zip(one[name]["losses"], other["losses"], strict=True)
        return [abs(first - second) for first, second in pairs]

    for name in ("lora", "finetune"):
        assert len(two[name]["losses"]) == 16
        assert max(differences(name, two[name])) < 1e-5
        assert two[name]["accuracy"] == one[name]["accuracy"]
    assert max(differences("nusa", two["nusa"])[:8]) < 1e-5
    assert max(differences("nusa", two["given"])) < 1e-5, "with the same singular vectors"
    assert two["signs"]["losses"] == two["nusa"]["losses"], "both take those of the first process"
    assert two["lora"]["launch"]["launcher"] == "torchrun"
    assert two["lora"]["launch"]["nodes"] == [socket.gethostname()] * 2


@pytest.mark.slow
def test_two_nodes_train_one_run(
    words: Callable[..., list[str]], undisturbed: Path, tmp_path: Path
) -> None:
    meeting = f"127.0.0.1:{free_port()}"
    node = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    node += ["--rdzv-id", "run", "--rdzv-endpoint", meeting]
    nodes = [start([*node, *CLBENCH, *words(tmp_path / "nodes")]) for _ in range(2)]
    outputs = [ended(process) for process in nodes]
    same(tmp_path / "nodes", undisturbed)
    assert sum("run directory:" in out for out, _ in outputs) == 1
    assert sum("4/4 task3" in errors for _, errors in outputs) == 1

    out, _ = ended(start([*TWO, *CLBENCH, *words(tmp_path / "nodes")]))
    assert out.count("run directory:") == 1, "it is complete, and all processes know"


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_slurm()
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.mark.slow
def test_srun_starts_the_processes_of_a_run(
    words: Callable[..., list[str]], undisturbed: Path, tmp_path: Path, cluster: Cluster
) -> None:
    environment = {**ENVIRONMENT, "SLURM_CONF": str(cluster.settings)}
    srun = ["srun", "--ntasks", "2", "--cpus-per-task", "1", *PYTHON]
    out, _ = ended(start([*srun, *CLBENCH, *words(tmp_path / "step")], env=environment))
    assert out.count("run directory:") == 1
    result = same(tmp_path / "step", undisturbed)
    assert result.provenance["launch"]["launcher"] == "srun"

    errors = ended(
        start([*srun, *CLBENCH, *words(tmp_path / "wrong", devices=3)], env=environment), 2
    )[1]
    assert said(errors) == [
        "clbench: srun started 2 processes (WORLD_SIZE), but devices=3: use --set devices=2, or "
        "start 3 processes"
    ]


FAILING = '''
from clbench.clip.losses import classification
from clbench.core.method import Method


class Failing(Method):
    """Fails in the second task of the second process, which gets 2 of 5 images."""

    name = "failing"
    paper = "https://example.org"
    transient = frozenset({"task"})

    def prepare(self, model):
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)

    def begin_task(self, task, data):
        self.task = task.index

    def loss(self, batch):
        if self.task and len(batch.labels) == 2:
            raise ArithmeticError("the sums do not add up")
        return {"classification": classification(self.model, batch)}
'''


@pytest.mark.slow
@pytest.mark.parametrize("starter", [PYTHON, TWO])
def test_what_goes_wrong_in_another_process_is_told_by_the_first(
    starter: list[str], words: Callable[..., list[str]], tmp_path: Path
) -> None:
    file = tmp_path / "failing.py"
    file.write_text(FAILING)
    command = [*starter, *CLBENCH, *words(tmp_path / "runs", "-q", method=f"{file}:Failing")]
    errors = ended(start(command), 1 if starter is TWO else 2)[1]
    (line,) = said(errors)
    assert line.startswith(f"clbench: process 1 of 2, on {socket.gethostname()}, failed: method")
    assert "ArithmeticError: the sums do not add up; the traceback is in log-1.txt" in line
    (folder,) = (tmp_path / "runs").glob("*/*/*")
    assert "ArithmeticError" in (folder / "log-1.txt").read_text()
    assert CheckpointStore(folder).positions(), "finished work is kept"


@pytest.mark.slow
def test_wrong_numbers_of_processes_are_one_line(
    words: Callable[..., list[str]], tmp_path: Path
) -> None:
    errors = ended(start([*TWO, *CLBENCH, *words(tmp_path / "runs", devices=4)]), 1)[1]
    assert said(errors) == [
        "clbench: torchrun started 2 processes (WORLD_SIZE), but devices=4: use --set devices=2, "
        "or start 4 processes"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("starter", "number", "other"),
    [
        (PYTHON, signal.SIGINT, TWO),
        (TWO, signal.SIGINT, PYTHON),
        (TWO, signal.SIGTERM, TWO),
    ],
    ids=["Ctrl-C", "torchrun-Ctrl-C", "torchrun-SIGTERM"],
)
def test_stopped_processes_save_and_go_on_whoever_starts_them(
    starter: list[str],
    number: signal.Signals,
    other: list[str],
    words: Callable[..., list[str]],
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    often = "--set=checkpoint_every.steps=1"
    process = start([*starter, *CLBENCH, *words(runs, often, "-q")], start_new_session=True)
    until(lambda: [*runs.rglob("task-001-step-*.json")], process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number if starter is PYTHON else process.returncode
    (line,) = said(errors)
    go_on = "resume with: clbench run --method" if starter is PYTHON else "run the same command"
    assert line.startswith(f"clbench: interrupted; {go_on}")
    (folder,) = runs.glob("*/*/*")
    (position, *_) = CheckpointStore(folder).positions()
    assert 0 < position.learned < 4

    ended(start([*other, *CLBENCH, *words(runs, "-q")]))
    result = same(runs, undisturbed)
    assert len(result.provenance["resumed"]) == 1


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_a_clear_line(
    words: Callable[..., list[str]], tmp_path: Path
) -> None:
    more = ["-q", "--set=train.steps=400", "--set=checkpoint_every.steps=1"]
    process = start([*PYTHON, *CLBENCH, *words(tmp_path / "runs", *more)])
    until(lambda: [*tmp_path.rglob("task-000-step-*.json")], process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    followers = [
        int(child)
        for child in children
        if b"clbench.launch.follow" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(followers[0], signal.SIGKILL)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 2, errors
    assert "one of the processes that train together died" in errors
    assert len(errors.splitlines()) == 1
