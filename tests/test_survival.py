"""Whole processes that are stopped, killed, run out of disk, or meet each other."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clbench.core.results.result import RunResult

CLI = [sys.executable, "-m", "clbench"]
RUN = ["run", "--method", "lora", "--quick", "-q", "--set", "checkpoint_every.steps=1"]


def start(runs: Path, *more: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
    arguments = [*CLI, *RUN, "--runs-dir", str(runs), *more]
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def wait_for(process: subprocess.Popen, runs: Path, pattern: str) -> Path:
    """Until a file appears; the process must still go on then."""
    while process.poll() is None:
        if found := sorted(runs.rglob(pattern)):
            return found[0]
        time.sleep(0.02)
    pytest.fail(f"the run ended before it wrote {pattern}: {process.communicate()[1]}")


def result(runs: Path) -> RunResult:
    (path,) = runs.glob("mini/lora/*/result.json")
    return RunResult.load(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    runs = tmp_path_factory.mktemp("whole")
    assert finish(start(runs))[0] == 0
    return result(runs)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_how_to_go_on_and_that_command_does(
    number: signal.Signals, whole: RunResult, tmp_path: Path
) -> None:
    process = start(tmp_path)
    wait_for(process, tmp_path, "task-001-step-*.json")
    process.send_signal(number)
    code, errors = finish(process)
    assert code == 128 + number
    (line,) = errors.splitlines()
    assert line.startswith("clbench: interrupted; resume with: clbench run --method lora")
    command = shlex.split(line.partition("resume with: ")[2])
    done = subprocess.run(
        [*CLI, *command[1:]],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert result(tmp_path).accuracy == whole.accuracy
    assert len(result(tmp_path).provenance["resumed"]) == 1


@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_the_checkpoint_is_good(
    whole: RunResult, tmp_path: Path
) -> None:
    process = start(tmp_path, "--set", "train.batch_size=512")
    wait_for(process, tmp_path, "task-000-step-000002.json")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    code, _ = finish(process)
    assert code in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert finish(start(tmp_path, "--set", "train.batch_size=512"))[0] == 0
    assert result(tmp_path).status == "quick"


@pytest.mark.slow
def test_a_signal_before_the_run_begins_ends_it_cleanly(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from clbench import api; from clbench.cli import app\n"
        "api.run = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.argv = ['clbench', 'run', '--method', 'lora']; app.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr == "clbench: interrupted; resume with: clbench run --method lora\n"


@pytest.mark.slow
def test_a_second_process_stops_at_once_and_says_who_holds_the_directory(tmp_path: Path) -> None:
    first = start(tmp_path)
    wait_for(first, tmp_path, ".owner.json")
    second = finish(start(tmp_path))
    assert second[0] == 2
    assert f"in use by process {first.pid} on {os.uname().nodename} since 2" in second[1]
    assert len(second[1].splitlines()) == 1
    first.send_signal(signal.SIGKILL)
    finish(first)
    assert finish(start(tmp_path))[0] == 0, "the lock of a dead process is nobody's"


@pytest.mark.slow
def test_files_that_must_not_grow_are_a_clear_line_and_cost_nothing(
    whole: RunResult, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE: a checkpoint does not fit, as on a disk that is full."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    arguments = [*CLI, *RUN, "--runs-dir", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        arguments, preexec_fn=limit, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write the checkpoint" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert result(tmp_path).summary["zero_shot"] == whole.summary["zero_shot"]
    assert finish(start(tmp_path))[0] == 0
    assert result(tmp_path).accuracy == whole.accuracy


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 9 MB small."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(folder)],
            check=False,
            capture_output=True,
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting needs more rights")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_a_clear_line_and_the_run_goes_on_once_there_is_room(
    whole: RunResult, small_disk: Path
) -> None:
    code, errors = finish(start(small_disk))
    assert code == 2, errors
    assert "cannot write" in errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) == 1
    (folder,) = small_disk.glob("mini/lora/*")
    assert not [p for p in folder.rglob("*.tmp") if p.stat().st_size > 0]
    before = result(small_disk)
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert finish(start(small_disk))[0] == 0
    after = result(small_disk)
    assert after.accuracy == whole.accuracy
    learned = before.matrix.learned
    assert (after.matrix.values[: learned + 1] == before.matrix.values[: learned + 1]).all()


@pytest.mark.slow
def test_a_read_only_directory_is_a_clear_line(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, errors = finish(start(small_disk))
    assert code == 2, errors
    assert "cannot write to the run directory" in errors
    assert "--runs-dir" in errors
    assert len(errors.splitlines()) == 1


def test_a_directory_without_rights_is_a_clear_line(tmp_path: Path) -> None:
    from clbench.core.errors import ClbenchError
    from clbench.engine.rundir.directory import RunDirectory

    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ClbenchError, match="Permission denied"), RunDirectory(tmp_path / "run"):
        pass


@pytest.mark.slow
def test_secrets_in_the_environment_reach_no_file_and_no_message(tmp_path: Path) -> None:
    secrets = {
        "WANDB_API_KEY": "5ec2e7" * 6,
        "HF_TOKEN": "hf_" + "Qx7" * 10,
        "MY_DB_PASSWORD": "correct horse battery",
    }
    runs = tmp_path / "runs"
    assert finish(start(runs, environment=secrets))[0] == 0
    plugin = tmp_path / "leaky.py"
    plugin.write_text(
        "import os\n"
        "from clbench.methods.zeroshot import ZeroShot\n"
        "class Leaky(ZeroShot.__base__):\n"
        "    name = 'leaky'; paper = ''\n"
        "    def loss(self, batch): return {}\n"
        "    def begin_task(self, task, data):\n"
        "        raise RuntimeError('cannot log in with ' + os.environ['WANDB_API_KEY'])\n"
    )
    environment = {**secrets, "PYTHONPATH": str(tmp_path)}
    arguments = ["run", "--method", "leaky:Leaky", "--quick", "--runs-dir", str(runs)]
    done = subprocess.run(
        [*CLI, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "leaky.py:7: RuntimeError: cannot log in with ***" in done.stderr
    everything = done.stdout + done.stderr
    files = [path for path in runs.rglob("*") if path.is_file()]
    assert len(files) > 20
    everything += "".join(path.read_bytes().decode("latin-1") for path in files)
    for secret in secrets.values():
        assert secret not in everything
