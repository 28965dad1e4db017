"""Where a result comes from: versions, machine, source revision, hashes of what went in."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import torch

from clbench.clip.model import CLIP
from clbench.core.data import SequenceData
from clbench.core.method import REFERENCE_SOURCES
from clbench.core.results.result import LAUNCHED, BenchmarkRecord, RunResult
from clbench.core.task import Task

ENVIRONMENT = (
    "CLBENCH_PLAIN",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PYTORCH_ENABLE_MPS_FALLBACK",
)
"""Variables that can change numbers. No others are recorded: they may be secrets."""

DIGITS = 16
"""Hex digits of a hash in a result: enough to tell any two apart."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def collect(device: torch.device, method: type) -> dict[str, Any]:
    """Versions, hardware and source revision, as plain JSON values.

    Args:
        device: where the run computes.
        method: class of the method, whose package is recorded too.
    """
    return {
        "packages": packages(method.__module__.partition(".")[0]),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cuda": {"toolkit": torch.version.cuda, "cudnn": _cudnn()},
        "environment": {n: os.environ[n] for n in ENVIRONMENT if n in os.environ},
        "git": _git_revision(Path(__file__).resolve().parents[3]),
    }


def timestamp() -> str:
    """The time now in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def packages(module: str) -> dict[str, str]:
    """Versions of clbench, of all it requires, directly or not, and of the package of a method.

    Args:
        module: top-level module that the method comes from.
    """
    found = dict(_required_by("clbench"))
    if module != "clbench" and module not in sys.stdlib_module_names:
        for name in _distributions().get(module, []):
            found |= _required_by(name)
    return dict(sorted(found.items()))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Top-level modules to what they were installed with; looks at every installed file."""
    return packages_distributions()


@functools.cache
def _required_by(name: str) -> Mapping[str, str]:
    """Versions of a distribution and of all that it requires, directly or not."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue  # required on other systems only
        found[name] = installed.version
        needed = (r for r in installed.requires or () if "extra ==" not in r)
        waiting += [match[0] for match in map(_NAME.match, needed) if match]
    return found


@dataclass(frozen=True)
class Inputs:
    """What a run is made of besides its settings and the source of its method.

    Attributes:
        backbone: architecture of the weights.
        weights: hash of the weights before any change.
        benchmark: the task sequence.
        splits: hash of each split, which covers what the images hold, labels, order and, if
            few-shot, the choice; and of lists that decide the splits.
        prompts: hash of each task's class names and prompts.
        reference: hashes of reference images and texts that lie in files; None where nobody looked
            at them.
    """

    backbone: str
    weights: str
    benchmark: BenchmarkRecord
    splits: Mapping[str, str]
    prompts: Mapping[str, str]
    reference: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls, model: CLIP, sequence: SequenceData, sources: Mapping[str, str] | None = None
    ) -> Inputs:
        """Take the hashes of an unchanged model, of a sequence and of reference data.

        Args:
            model: the backbone.
            sequence: the images.
            sources: what `reference_sources` returned; None leaves reference data aside.

        Raises:
            ClbenchError: an image or a text cannot be read.
        """
        benchmark, splits = sequence.benchmark, {}
        for t, task in enumerate(benchmark.tasks):
            splits[f"{task.name}/train"] = sequence.train_set(t).digest()[:DIGITS]
            splits[f"{task.name}/test"] = sequence.test_set(t).digest()[:DIGITS]
        lists = getattr(sequence, "list_hashes", {})  # sequences from elsewhere may have none
        splits |= {name: digest[:DIGITS] for name, digest in lists.items()}
        prompts = {task.name: _prompt_hash(task) for task in benchmark.tasks}
        record = BenchmarkRecord.of(benchmark)
        reference = None if sources is None else hash_reference(sequence, sources, quiet=True)
        return cls(model.name, model.fingerprint(), record, splits, prompts, reference)

    def changes_since(self, result: RunResult) -> list[str]:
        """What is not as it was when a result was made, in words; empty if everything is.

        Prompts and reference data are compared with results that record them.
        """
        before, found = result.backbone.fingerprint, []
        if before != self.weights:
            found.append(
                f"the backbone's weights ({before[:DIGITS]} is now {self.weights[:DIGITS]})"
            )
        old, new = result.benchmark.model_dump(), self.benchmark.model_dump()
        found += [
            f"the benchmark's {key} ({old[key]} is now {new[key]})"
            for key in ("version", "setting", "order", "tasks")
            if old[key] != new[key]
        ]
        found += _differing("images of", result.data.splits, self.splits)
        if result.data.prompts:
            found += _differing("prompts of", result.data.prompts, self.prompts)
        if result.data.reference_hashes and self.reference is not None:
            found += _differing("reference", result.data.reference_hashes, self.reference)
        return found


def reference_sources(needs: Collection[str], params: Mapping[str, Any]) -> dict[str, str]:
    """Where a method's reference data come from, by hyper-parameter.

    Args:
        needs: those that the method declares.
        params: its hyper-parameters.
    """
    return {
        key: params[key]
        for key, need in REFERENCE_SOURCES.items()
        if need in needs and key in params
    }


def hash_reference(
    sequence: SequenceData, sources: Mapping[str, str], *, quiet: bool
) -> dict[str, str]:
    """Take the hashes of reference data that lie in files.

    Args:
        sequence: what reads them.
        sources: what `reference_sources` returned.
        quiet: show no progress.

    Raises:
        ClbenchError: one cannot be read.
    """
    images, texts = (sources.get(key, "task") for key in REFERENCE_SOURCES)
    hashes = sequence.reference_hashes(images, texts, quiet=quiet) if sources else {}
    return {key: digest[:DIGITS] for key, digest in hashes.items()}


def _prompt_hash(task: Task) -> str:
    text = json.dumps([task.classes.names, task.classes.prompts])
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _differing(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [
        f"the {what} {name} ({before.get(name, 'none')} is now {now.get(name, 'gone')})"
        for name in names
    ]


def launch() -> dict[str, Any]:
    """Who started this process where, and whether other runs share the machine with it."""
    try:
        told = json.loads(os.environ.get(LAUNCHED, "{}"))
    except ValueError:
        told = {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {
        "launcher": str(told.get("launcher", "none")),
        "node": socket.gethostname(),
        "devices": visible if torch.cuda.is_available() else None,
        "shared": bool(told.get("shared", False)),
    }


def _cudnn() -> int | None:
    version: int | None = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    return version


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({os.cpu_count()} cores)"


@functools.cache
def _git_revision(source: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the checkout the package runs from; None if installed."""
    if not (source / ".git").exists():
        return None
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    outputs = []
    for command in commands:
        try:
            done = subprocess.run(
                ["git", "-C", str(source), *command],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        outputs.append(done.stdout.strip())
    return {"commit": outputs[0], "dirty": bool(outputs[1])}
