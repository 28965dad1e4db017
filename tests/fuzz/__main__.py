"""Feed every reader damaged inputs, count what comes of it, and write the table into a page.

``python -m tests.fuzz --inputs 10000 --write docs/robustness.md`` (`make fuzz`); exit code 1 if any
input ended in a traceback.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from clbench.core.files import write_atomic
from tests.fuzz.formats import FORMATS, Format, is_read
from tests.fuzz.memory import peak, reset_peak
from tests.fuzz.strategies import checked

BLOCK = re.compile(r"(<!-- fuzz -->\n).*?(<!-- end of fuzz -->)", re.DOTALL)


def count(kind: Format, inputs: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """What came of the inputs, and the tracebacks."""
    counts: Counter[str] = Counter()
    tracebacks: list[str] = []

    @checked(inputs, kind.inputs)
    def feed(content: Any) -> None:
        counts["inputs"] += 1
        try:
            counts["read" if is_read(kind, content, folder) else "refused"] += 1
        except Exception as error:
            counts["tracebacks"] += 1
            tracebacks.append("".join(traceback.format_exception(error)))

    feed()
    return counts, tracebacks


def main() -> int:
    """Run all formats, print and write the table."""
    parser = argparse.ArgumentParser(description="Feed every reader damaged inputs.")
    parser.add_argument("--inputs", type=int, default=10_000, help="in all")
    parser.add_argument("--only", nargs="*", choices=FORMATS, default=[])
    parser.add_argument("--write", type=Path, help="page with a place for the table")
    given = parser.parse_args()
    warnings.simplefilter("error")
    chosen = given.only or list(FORMATS)
    lines = ["| read | inputs | taken | refused | tracebacks |", "|---|--:|--:|--:|--:|"]
    total: Counter[str] = Counter()
    started = time.monotonic()
    reset_peak()
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            share = -(-given.inputs // len(chosen))
            counts, tracebacks = count(FORMATS[name], share, Path(folder) / "input")
            total += counts
            numbers = (counts[key] for key in ("inputs", "read", "refused", "tracebacks"))
            lines.append(f"| {FORMATS[name].title} | {' | '.join(map(str, numbers))} |")
            sys.stdout.write(f"{lines[-1]}\n")
            for text in dict.fromkeys(tracebacks[:3]):
                sys.stdout.write(f"{text}\n")
    numbers = (total[key] for key in ("inputs", "read", "refused", "tracebacks"))
    lines.append(f"| all | {' | '.join(map(str, numbers))} |")
    took = f"{(time.monotonic() - started) / 60:.0f} minutes"
    grown = f"{(peak() - before) / 1e6:.0f} MB"
    lines += ["", f"Memory grew by {grown} at most; the command took {took}."]
    sys.stdout.write("\n".join(lines[-3:]) + "\n")
    if given.write is not None:
        table = "\n".join(lines)
        text = BLOCK.sub(
            lambda block: f"{block[1]}\n{table}\n\n{block[2]}", given.write.read_text()
        )
        write_atomic(given.write, text)
    return 1 if total["tracebacks"] else 0


if __name__ == "__main__":
    sys.exit(main())
