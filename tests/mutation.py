"""Small errors are put into the code that keeps results, and the tests must notice each of them.

``python -m tests.mutation --minutes 20``: every mutant is one change of one place (a comparison, a
condition, a number, a statement left out). It is killed if the tests of its file fail. Outcomes are
kept, so the next call goes on with the mutants that are left; those of files that were edited since
are tried again. The order is that of a hash, so that a part of all mutants is a fair sample.
``--write docs/robustness.md`` puts the score into the page.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, ModuleType

from clbench.core.files import write_atomic

BLOCK = re.compile(r"(<!-- mutants -->\n).*?(<!-- end of mutants -->)", re.DOTALL)
ROOT = Path(__file__).resolve().parents[1]
RUNDIR = "clbench/engine/rundir"
RESULTS = "clbench/core/results"
TARGETS: dict[str, tuple[str, ...]] = {
    "clbench/core/files.py": ("core/test_files.py", "engine/rundir/test_power_cut.py"),
    "clbench/verify.py": ("test_verify.py",),
    f"{RESULTS}/losses.py": ("core/results/test_losses.py",),
    f"{RESULTS}/manifest.py": ("core/results/test_manifest.py",),
    f"{RESULTS}/signature.py": ("core/results/test_signature.py",),
    f"{RESULTS}/soundness.py": ("core/results/test_soundness.py",),
    f"{RUNDIR}/checkpoints.py": (
        "engine/rundir/test_checkpoints.py",
        "engine/rundir/test_power_cut.py",
    ),
    f"{RUNDIR}/directory.py": (
        "engine/rundir/test_directory.py",
        "engine/rundir/test_power_cut.py",
    ),
    f"{RUNDIR}/ownership.py": ("engine/rundir/test_ownership.py",),
    f"{RUNDIR}/recording.py": ("engine/rundir/test_resuming.py", "engine/test_runner.py"),
    f"{RUNDIR}/resuming.py": ("engine/rundir/test_resuming.py", "test_changed_source.py"),
    f"{RUNDIR}/state_tree.py": ("engine/rundir/test_checkpoints.py",),
    f"{RUNDIR}/zeroshot.py": ("engine/rundir/test_zeroshot.py", "engine/test_runner.py"),
    "clbench/engine/training/step_checkpoints.py": ("engine/rundir/test_resuming.py",),
    "clbench/engine/process/randomness.py": ("engine/rundir/test_resuming.py",),
}
"""Mutated file to the tests that have to notice, below tests/."""
LIBRARIES = ("lightning.pytorch", "open_clip", "pandas", "pytest", "torchmetrics", "typer")
"""Imported once, before a process for every mutant splits off."""

UNUSED = 99
"""Exit code of tests that never imported the mutant."""

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
}
Change = Callable[[ast.AST], None]


@dataclass(frozen=True)
class Mutant:
    """One change of one place.

    Attributes:
        path: file, relative to the checkout.
        line: where.
        column: where.
        what: the change.
        version: hash of the file and of its tests.
    """

    path: str
    line: int
    column: int
    what: str
    version: str

    @property
    def rank(self) -> str:
        """Where it stands in the order."""
        return hashlib.sha256(
            repr((self.path, self.line, self.column, self.what)).encode()
        ).hexdigest()

    def __str__(self) -> str:
        source = (ROOT / self.path).read_text().splitlines()[self.line - 1].strip()
        return f"{self.path}:{self.line}: {self.what}: {source}"


def changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """What may be changed in a node: a description, and the function that does it in place."""
    if isinstance(node, ast.Compare | ast.BoolOp | ast.BinOp):
        operators = node.ops if isinstance(node, ast.Compare) else [node.op]
        for place, operator in enumerate(operators):
            if (other := SWAPS.get(type(operator))) is not None:
                what = f"{type(operator).__name__} {place} becomes {other.__name__}"
                yield what, _operator(place, other)
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition negated", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"{node.value} becomes {not node.value}", lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield f"{node.value} grows by 1", lambda n: setattr(n, "value", n.value + 1)


def _operator(place: int, other: type[ast.AST]) -> Change:
    def change(node: ast.AST) -> None:
        if isinstance(node, ast.Compare):
            node.ops[place] = other()
        else:
            node.op = other()

    return change


def removable(statement: ast.stmt) -> bool:
    """Whether a function still makes sense without a statement."""
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)


def mutations(tree: ast.Module) -> Iterator[tuple[ast.AST, str, Callable[[], None]]]:
    """Every change of a tree: the node, a description, and what makes it in place."""
    annotations = {id(a) for n in ast.walk(tree) for a in _annotations(n) for a in ast.walk(a)}
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        for what, change in changes(node):
            yield node, what, lambda node=node, change=change: change(node)
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and not isinstance(node, ast.Module | ast.ClassDef):
                for place, statement in enumerate(block):
                    if removable(statement):
                        remove = _remove(block, place)
                        yield statement, "statement left out", remove


def _remove(block: list[ast.stmt], place: int) -> Callable[[], None]:
    def change() -> None:
        block[place] = ast.copy_location(ast.Pass(), block[place])

    return change


def _annotations(node: ast.AST) -> list[ast.AST]:
    found = [getattr(node, name, None) for name in ("annotation", "returns")]
    return [annotation for annotation in found if isinstance(annotation, ast.AST)]


def mutants(path: str) -> dict[Mutant, ast.Module]:
    """All mutants of a file with their trees."""
    source = (ROOT / path).read_bytes()
    digest = hashlib.sha256(source)
    for test in TARGETS[path]:
        digest.update((ROOT / "tests" / test).read_bytes())
    version = digest.hexdigest()[:12]
    found: dict[Mutant, ast.Module] = {}
    for number in range(sum(1 for _ in mutations(ast.parse(source)))):
        tree = ast.parse(source)
        node, what, apply = [*mutations(tree)][number]
        mutant = Mutant(path, node.lineno, node.col_offset, what, version)
        apply()
        found[mutant] = ast.fix_missing_locations(tree)
    return found


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from a tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        super().__init__(name, str(path))
        self.tree = tree
        self.used = False

    def get_code(self, fullname: str) -> CodeType:
        self.used = True
        return compile(self.tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Puts a mutant in the place of its module."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.name = path.removesuffix(".py").replace("/", ".")
        self.loader = _Loader(self.name, ROOT / path, tree)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.loader.path, loader=self.loader)


def tests_pass(path: str, tree: ast.Module | None, limit: float) -> bool:
    """Run the tests of a file in a process of their own; too long counts as a failure."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            code = _run_tests(path, tree)
        finally:
            os._exit(code)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if (code := os.waitstatus_to_exitcode(status)) == UNUSED:
                raise SystemExit(f"the tests of {path} do not import it")
            return code == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _run_tests(path: str, tree: ast.Module | None) -> int:
    import pytest

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    finder = None if tree is None else _Finder(path, tree)
    if finder is not None:
        sys.meta_path.insert(0, finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == "clbench"]:
            del sys.modules[name]  # what this program imports itself
    with tempfile.TemporaryDirectory(prefix="clbench-mutant-") as folder:
        options = ["-x", "-q", "-n0", "-p", "no:cacheprovider", "--basetemp", f"{folder}/tests"]
        options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what LIBRARIES import
        code = int(pytest.main([*options, *(f"tests/{name}" for name in TARGETS[path])]))
    return UNUSED if finder is not None and not finder.loader.used else code


def try_mutants(paths: Sequence[str], minutes: float, state: Path) -> dict[Mutant, bool]:
    """Go on until all mutants of the files are tried or the time is over.

    Returns:
        Whether each mutant that was ever tried, and is still of the present code, was killed.
    """
    for library in LIBRARIES:
        importlib.import_module(library)
    trees = {m: tree for path in paths for m, tree in mutants(path).items()}
    known: dict[Mutant, bool] = {}
    for line in state.read_text().splitlines() if state.exists() else ():
        record = json.loads(line)
        known[Mutant(**record["mutant"])] = record["killed"]
    outcomes = {m: known[m] for m in trees if m in known}
    end = time.monotonic() + 60 * minutes
    limits: dict[str, float] = {}
    state.parent.mkdir(parents=True, exist_ok=True)
    for mutant in sorted(trees.keys() - outcomes.keys(), key=lambda m: m.rank):
        if time.monotonic() > end:
            break
        if mutant.path not in limits:
            began = time.monotonic()
            if not tests_pass(mutant.path, None, 600):
                raise SystemExit(f"the tests of {mutant.path} fail without any change")
            limits[mutant.path] = 20 + 3 * (time.monotonic() - began)
        killed = not tests_pass(mutant.path, trees[mutant], limits[mutant.path])
        outcomes[mutant] = killed
        with state.open("a") as file:
            file.write(json.dumps({"mutant": asdict(mutant), "killed": killed}) + "\n")
        print(f"{'killed  ' if killed else 'SURVIVED'} {mutant}", flush=True)
    print(f"{len(outcomes)} of {len(trees)} mutants tried, {sum(outcomes.values())} killed")
    return outcomes


def score(outcomes: dict[Mutant, bool]) -> str:
    """A Markdown table of the outcomes by file, and the list of the mutants that survive."""
    lines = ["| mutated | tried | killed |", "|---|--:|--:|"]
    for path in sorted({mutant.path for mutant in outcomes}):
        of_file = [killed for mutant, killed in outcomes.items() if mutant.path == path]
        lines.append(f"| `{path}` | {len(of_file)} | {sum(of_file)} |")
    lines += [f"| all | {len(outcomes)} | {sum(outcomes.values())} |", ""]
    survivors = sorted(str(mutant) for mutant, killed in outcomes.items() if not killed)
    lines += [f"- survives: `{survivor}`" for survivor in survivors] or ["None survives."]
    return "\n".join(lines)


def main() -> None:
    """Command line of the mutation run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", help="files to mutate; all of them by default")
    parser.add_argument("--minutes", type=float, default=20, help="stop after so long")
    parser.add_argument("--state", type=Path, default=ROOT / ".mutants.jsonl")
    parser.add_argument("--write", type=Path, help="page with a place for the score")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    paths = options.files or list(TARGETS)
    if unknown := [path for path in paths if path not in TARGETS]:
        parser.error(f"no tests are known for {unknown[0]}")
    outcomes = try_mutants(paths, options.minutes, options.state)
    for mutant in sorted((m for m, killed in outcomes.items() if not killed), key=str):
        print(f"survives: {mutant}")
    if options.write is not None:
        table = score(outcomes)
        page = BLOCK.sub(lambda b: f"{b[1]}\n{table}\n\n{b[2]}", options.write.read_text())
        write_atomic(options.write, page)


if __name__ == "__main__":
    main()
