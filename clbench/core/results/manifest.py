"""The manifest of a run directory: size and hash of every file of a finished run, written last.

    {"format": "clbench-manifest/1", "files": {"log.txt": {"bytes": 310, "sha256": "..."}, ...},
     "sha256": "..."}

The last hash is that of ``files``. Whoever edits a file and the manifest can make them agree again;
a signature (`clbench.core.results.signature`) is what shows that, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from clbench.core.errors import ClbenchError
from clbench.core.files import content_hash, file_hash, sync_folder, write_atomic
from clbench.core.results.correctness import FOLDER as CORRECT
from clbench.core.results.result import FILE_NAME as RESULT_FILE
from clbench.core.results.result import RunResult
from clbench.core.results.soundness import Finding
from clbench.core.results.tracker import LOSS_FILE

FORMAT: Final = "clbench-manifest/1"
FILE_NAME: Final = "manifest.json"
FIRST_SCHEMA: Final = 3
"""Schema of the first results whose directories have a manifest."""
FILES: Final = (
    "config.yaml",
    "log.txt",
    "matrix.csv",
    "metrics.csv",
    LOSS_FILE,
    "probes.csv",
    RESULT_FILE,
    "table.md",
)
"""Files that a run may write and never changes once it is finished; trackers have their own."""
FOLDERS: Final = ("checkpoints", CORRECT)


def covered(folder: Path) -> list[str]:
    """Names of the files of a run that are there, relative to its directory."""
    names = [name for name in FILES if (folder / name).is_file()]
    for inner in FOLDERS:
        found = sorted(path.name for path in (folder / inner).glob("*") if path.is_file())
        names += [f"{inner}/{name}" for name in found if not name.startswith(".")]
    return names


def write_manifest(folder: Path) -> None:
    """Write the manifest of a finished run, after all it names is safe from a power cut.

    Raises:
        ClbenchError: a file cannot be read, or the manifest not written.
    """
    files: dict[str, dict[str, Any]] = {}
    try:
        for name in covered(folder):
            path = folder / name
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[name] = {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for inner in ("", *FOLDERS):
            sync_folder(folder / inner)
    except OSError as error:
        raise ClbenchError(f"cannot read the files of {folder}: {error.strerror}") from error
    content = {"format": FORMAT, "files": files, "sha256": content_hash(files)}
    write_atomic(folder / FILE_NAME, json.dumps(content, indent=1) + "\n")


def check_manifest(folder: Path, result: RunResult) -> Iterator[Finding]:
    """Whether every file of a run is the one that its manifest names, and none was added."""
    path = folder / FILE_NAME
    if not path.exists():
        if result.status == "partial":
            yield Finding("manifest", "none before the run is finished")
        elif result.schema_version < FIRST_SCHEMA:
            yield Finding("manifest", "none: written by an older version")
        else:
            yield Finding("manifest", "missing", False)
        return
    files = _read(path)
    present = covered(folder)
    problems = [f"{name} is missing" for name in files if name not in present]
    problems += [f"{name} was added" for name in present if name not in files]
    problems += [
        f"{name} is not the file that the run wrote"
        for name in present
        if name in files and file_hash(folder / name) != files[name]
    ]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    text = ", ".join(problems[:3]) + more or f"{len(files)} files are as the run wrote them"
    yield Finding("manifest", text, not problems)


def _read(path: Path) -> dict[str, str]:
    """File name to hash.

    Raises:
        ClbenchError: the manifest is damaged or was edited.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = content["files"]
        if content["format"] == FORMAT and content["sha256"] == content_hash(files):
            return {name: entry["sha256"] for name, entry in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ClbenchError(f"{path} is damaged: {type(error).__name__}") from error
    raise ClbenchError(f"{path} is not what clbench wrote: it was edited or damaged")
