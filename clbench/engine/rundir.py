"""The directory of a run: who may write to it, and how it is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.core.result import RunResult
from clbench.core.settings import RunSettings

RESULT = "result.json"


def run_path(runs_dir: Path, settings: RunSettings) -> Path:
    """``<runs>/<benchmark>/<method>/seed<k>-<hash>``: the same settings, the same folder."""
    leaf = f"seed{settings.seed}-{settings.fingerprint()}"
    benchmark, method = settings.benchmark.name, settings.method.name
    return runs_dir / folder_name(benchmark) / folder_name(method) / leaf


def folder_name(name: str) -> str:
    """A benchmark's or method's name as one folder, which leads nowhere else.

    >>> folder_name("mtil-5shot"), folder_name("folder:/data/birds"), folder_name("..")
    ('mtil-5shot', 'folder-data-birds', '-')
    """
    return re.sub(r"[^\w.-]+", "-", name).lstrip(".") or "-"


class RunDirectory:
    """A run directory, locked while the run goes on. Use as a context manager.

    Args:
        path: the directory; created on entry.

    Raises:
        ClbenchError: on entry, if it cannot be written or another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock")

    def __enter__(self) -> RunDirectory:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            (self.path / ".lock").write_text(str(os.getpid()), encoding="ascii")
        except Timeout:
            raise ClbenchError(
                f"{self.path} is in use by process {self._owner()}: wait for it or stop it"
            ) from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise ClbenchError(
                f"cannot write to the run directory {self.path}: {reason}; "
                "choose another place with --runs-dir"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def result(self) -> RunResult | None:
        """The result so far, if any.

        Raises:
            ClbenchError: the file is damaged.
        """
        path = self.path / RESULT
        return RunResult.load(path) if path.exists() else None

    def save_settings(self, settings: RunSettings) -> None:
        """Write ``config.yaml``."""
        text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)
        write_atomic(self.path / "config.yaml", text)

    def save_result(self, result: RunResult) -> None:
        """Write ``result.json``."""
        result.save(self.path / RESULT)

    def log(self, text: str) -> None:
        """Append a line to ``log.txt``."""
        self._append("log.txt", text)

    def record(self, values: Mapping[str, Any]) -> None:
        """Append one JSON object to ``metrics.jsonl``."""
        self._append("metrics.jsonl", json.dumps(dict(values)))

    def drop_records(self, learned: int) -> None:
        """Forget the records of tasks after the first `learned`: they will be trained again."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["task"] <= learned]
        write_atomic(path, "".join(f"{line}\n" for line in kept))

    def save_checkpoint(self, learned: int, state: Mapping[str, Any]) -> None:
        """Keep a method's state after a task, and only then drop the one before."""
        folder = self.path / "checkpoints"
        target = self._checkpoint(learned)
        partial = target.with_suffix(".partial")
        tensors, other = flatten_state(state)
        try:
            folder.mkdir(exist_ok=True)
            save_file(tensors, partial, {"other": json.dumps(other)})
            partial.replace(target)
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise ClbenchError(f"cannot write the checkpoint {target}: {error}") from error
        for old in folder.glob("task-*.safetensors"):
            if old != target:
                old.unlink()

    def load_checkpoint(self, learned: int) -> dict[str, Any] | None:
        """The state saved after `learned` tasks; None if it is missing or damaged."""
        try:
            with safe_open(self._checkpoint(learned), framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                other = json.loads(file.metadata()["other"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None
        return unflatten_state(tensors, other)

    def _checkpoint(self, learned: int) -> Path:
        return self.path / "checkpoints" / f"task-{learned:03d}.safetensors"

    def _append(self, name: str, line: str) -> None:
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise ClbenchError(f"cannot write {self.path / name}: {error.strerror}") from error

    def _owner(self) -> str:
        try:
            return (self.path / ".lock").read_text(encoding="ascii").strip() or "unknown"
        except OSError:
            return "unknown"


def flatten_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split a state dict into tensors, as safetensors keeps them, and plain JSON values.

    Modules may hold extra state: a tensor, a plain value, or a flat mapping of these. Tensors
    of a mapping are named ``<key>|<name>``. Tensors that share memory are copied.
    """
    tensors: dict[str, Tensor] = {}
    other: dict[str, Any] = {}
    seen: set[int] = set()
    for key, value in state.items():
        entries = {key: value}
        if isinstance(value, Mapping):
            entries = {f"{key}|{inner}": entry for inner, entry in value.items()}
            other[key] = {}
        for name, entry in entries.items():
            if not isinstance(entry, Tensor):
                other[name] = entry
                continue
            tensor = entry.detach().cpu().contiguous()
            address = tensor.untyped_storage().data_ptr()
            tensors[name] = tensor.clone() if address in seen else tensor
            seen.add(address)
    return tensors, other


def unflatten_state(tensors: Mapping[str, Tensor], other: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten_state`."""
    state: dict[str, Any] = {}
    for name, value in {**other, **tensors}.items():
        key, inner, entry = name.partition("|")
        if inner:
            state.setdefault(key, {})[entry] = value
        else:
            state.setdefault(key, value)
    return state
