"""Lock published reports: hashes of the results and of all tables that are built from them.

``python -m clbench.lock reports`` writes ``reports/SHA256SUMS``, which ``sha256sum --check``
reads too.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from clbench.core.errors import ClbenchError
from clbench.core.files import file_hash, write_atomic
from clbench.core.results.correctness import SUFFIX
from clbench.core.results.result import RESULTS, RunResult
from clbench.core.results.soundness import require_sound
from clbench.naming import titled, titles
from clbench.report.search.read import FILE as TRIALS
from clbench.report.search.write import search_texts
from clbench.report.write import report_files
from clbench.studies.runs import MEASURED

NAME = "SHA256SUMS"
STUDIES = "studies"
SHOWN = (
    "against-finetune.md",
    "*/against-finetune.md",
    "claims-mtil.md",
    "ranks.md",
    "rank-correlation.md",
    "short/summary.md",
    "figures/tradeoff.svg",
    "figures/ranks.svg",
)
"""What pages show beside those tables, as patterns of paths. It is hashed as it is: intervals take
long to draw again, and figures depend on the version of matplotlib."""


def lock(reports: Path) -> str:
    """A line ``<SHA-256>  <path>`` for every result and every table, sorted by path.

    Tables are rebuilt from the results, whether or not they are in the folder.

    Args:
        reports: folder with reports, each beside its folder ``results``.

    Raises:
        ClbenchError: there are no results, or one was edited or contradicts its record of images.
    """
    hashes: dict[Path, str] = {}
    for folder in sorted(reports.rglob(RESULTS)):
        files = sorted(folder.glob("*.json"))
        shown = [file for pattern in SHOWN for file in folder.parent.glob(pattern)]
        for file in (*files, *folder.glob(f"*{SUFFIX}"), *shown):
            hashes[file] = file_hash(file)
        results = [require_sound(file) for file in files]
        for name, text in _tables(folder.parent, results).items():
            hashes[folder.parent / name] = hashlib.sha256(text.encode()).hexdigest()
    hashes |= {file: file_hash(file) for file in reports.rglob(MEASURED)}
    if not hashes:
        raise ClbenchError(f"no results in {reports}: expected folders named {RESULTS}")
    lines = {path.relative_to(reports).as_posix(): digest for path, digest in hashes.items()}
    return "".join(f"{digest}  {path}\n" for path, digest in sorted(lines.items()))


def _tables(folder: Path, results: list[RunResult]) -> dict[str, str]:
    """The tables that are built from the results of a folder, by file name.

    Those of a study stand in its page, which lies elsewhere.
    """
    if folder.parent.name == STUDIES:
        return {}
    if (folder / TRIALS).is_file():
        return search_texts(folder, titles())
    return report_files(titled(results))


def main() -> None:
    """Write the lock file of the folder named on the command line."""
    try:
        (reports,) = map(Path, sys.argv[1:])
        write_atomic(reports / NAME, lock(reports))
    except ClbenchError as error:
        raise SystemExit(f"clbench: {error}") from None


if __name__ == "__main__":
    main()
