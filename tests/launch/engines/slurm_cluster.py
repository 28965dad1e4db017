"""A Slurm of one node on this machine, from the programs that are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

SETTINGS = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/daemon.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/daemon.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def program(name: str) -> str | None:
    """Where a daemon is; Debian gives them other names until alternatives are set up."""
    return shutil.which(name) or shutil.which(f"{name}-wlm")


def missing() -> list[str]:
    """What is not installed, or not allowed."""
    absent = [name for name in ("munged", "slurmctld", "slurmd") if program(name) is None]
    absent += [name for name in ("sbatch", "squeue", "scontrol") if shutil.which(name) is None]
    return absent or (["the rights of root"] if os.geteuid() else [])


def require_slurm() -> None:
    """Skip a test that needs what this machine lacks."""
    if absent := missing():
        pytest.skip(f"needs {', '.join(absent)}")


class Cluster:
    """Munge, a controller and a node, started on entry and stopped on exit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / "slurm.conf"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        host = socket.gethostname().partition(".")[0]
        ports = {name: _free_port() for name in ("controller", "daemon")}
        self.settings.write_text(SETTINGS.format(folder=self.folder, host=host, **ports))
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.folder.chmod(0o755)
        files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder}/munge.{end}" for option, end in files.items()]
        self._start("munged", "--foreground", "--force", f"--key-file={key}", *options)
        _until(lambda: (self.folder / "munge.socket").exists())
        self._start("slurmctld", "-D", "-f", str(self.settings))
        self._start("slurmd", "-D", "-f", str(self.settings), "-N", host)
        _until(lambda: "idle" in self.said("sinfo", "-h", "-p", "low", "-o", "%t"))
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def said(self, *command: str) -> str:
        """What one of Slurm's commands prints, whether it fails or not."""
        environment = {**os.environ, "SLURM_CONF": str(self.settings)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        return done.stdout + done.stderr

    def jobs(self) -> dict[str, str]:
        """What is in the queue: job to state."""
        lines = self.said("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return dict(line.split() for line in lines)

    def _start(self, name: str, *arguments: str) -> None:
        found = program(name)
        assert found is not None
        log = (self.folder / f"{name}.out").open("wb")
        self._processes.append(subprocess.Popen([found, *arguments], stdout=log, stderr=log))
        log.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _until(condition) -> None:  # type: ignore[no-untyped-def]
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError("Slurm did not start")
