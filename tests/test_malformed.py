"""Whatever a file holds, the command line ends with a result or with exit code 2 and clear lines.

Each property runs on a few inputs by default and on hundreds with ``pytest -m slow``.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from clbench import api
from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.core.results.matrix import SUMMARY_KEYS
from clbench.core.results.result import RunResult
from tests.fuzz.strategies import KEYS, TREES, changed_value, checked, damage

DATA = Path(__file__).parent / "data"
FEW, MANY = 6, 250


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def ends_well(outcome: Result, *, lines: int | None = 1) -> None:
    """No traceback; a failure is exit code 2 and short."""
    assert outcome.exception is None or isinstance(outcome.exception, SystemExit), repr(
        outcome.exception
    )
    assert outcome.exit_code in (0, 2), outcome.output
    if outcome.exit_code == 2:
        said = outcome.stderr.splitlines()
        assert said
        assert all(line.startswith("clbench: ") for line in said), said
        assert lines is None or len(said) == lines, said


def sizes(test: Callable[..., None]) -> Callable[..., None]:
    """Run with few inputs always, with many where asked for."""
    many = pytest.param(MANY, marks=pytest.mark.slow)
    return pytest.mark.parametrize("examples", [FEW, many])(test)


# Configurations.

CONFIGURATIONS = st.one_of(
    st.dictionaries(KEYS, TREES, max_size=5).map(lambda tree: yaml.safe_dump(tree).encode()),
    st.binary(max_size=80),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"[" * 3000,
            b"a: " * 3000,
            b"{" * 3000,
            b"train: &a [*a]",
            b"train: !!python/object/apply:os.system ['touch /tmp/owned']",
            b"a: &a [x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
            b"method: {rank: [*c,*c,*c,*c,*c,*c,*c,*c]}",
            b"seed: " + b"9" * 5000,
            b"train: {steps: 1e999}",
            b"? [1, 2]\n: 3",
            b"2026-01-01: 1",
        ]
    ),
)


@sizes
def test_configurations(examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(*args: object, **options: object) -> None:
        raise ClbenchError("resolved")

    monkeypatch.setattr(api, "run_resolved", resolved)
    path = tmp_path / "config.yaml"

    @checked(examples, CONFIGURATIONS)
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        outcome = invoke("run", "--config", path)
        assert outcome.exit_code == 2
        ends_well(outcome, lines=None)
        assert len(outcome.stderr) < 20_000

    holds()
    assert not Path("/tmp/owned").exists()


@sizes
def test_settings_on_the_command_line(
    examples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolved(*args: object, **options: object) -> None:
        raise ClbenchError("resolved")

    monkeypatch.setattr(api, "run_resolved", resolved)
    keys = st.lists(KEYS, min_size=1, max_size=3).map(".".join)
    values = st.one_of(st.text(max_size=20), TREES.map(repr))

    @checked(examples, st.tuples(keys, values))
    def holds(pair: tuple[str, str]) -> None:
        outcome = invoke("run", "--set", f"{pair[0]}={pair[1]}")
        assert outcome.exit_code == 2
        ends_well(outcome, lines=None)

    holds()


# Matrix files.

MATRIX = b"task,a,b,c\nimages,10,20,30\nzero-shot,10,20,30\na,50,20.5,30\nb,40,60,35\nc,40,55,80\n"
CELLS = st.one_of(st.text(max_size=5), st.floats().map(str), st.integers(-5, 120).map(str))
GRIDS = st.lists(st.lists(CELLS, max_size=5).map(",".join), max_size=6).map("\n".join)


@sizes
def test_matrix_files(examples: int, tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    contents = st.one_of(
        damage().map(lambda change: change(MATRIX)),
        GRIDS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    )

    @checked(examples, contents)
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        outcome = invoke("metrics", path, "--json")
        ends_well(outcome)
        if outcome.exit_code == 0:
            summary = json.loads(outcome.stdout)
            assert tuple(summary) == SUMMARY_KEYS
            known = [value for value in summary.values() if value is not None]
            assert all(math.isfinite(value) and -1 <= value <= 1 for value in known)

    holds()


# Result files.

SAMPLES = sorted((DATA / "results").glob("schema-*.json"))


def loaded(path: Path) -> tuple[RunResult | None, str]:
    """The result of a file, or why it was refused."""
    try:
        return api.load_result(path), ""
    except ClbenchError as error:
        return None, str(error)


@sizes
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_result_files(examples: int, sample: Path, tmp_path: Path) -> None:
    """A file that is taken has the numbers of the original; the sealed ones in every detail."""
    path = tmp_path / "result.json"
    good = sample.read_bytes()
    original = json.loads(good)
    damaged = damage().map(lambda change: change(good))
    edited = st.tuples(st.integers(0, 10**6), TREES).map(
        lambda pair: json.dumps(changed_value(json.loads(good), *pair), default=str).encode()
    )

    @checked(examples, st.one_of(damaged, edited))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        result, refused = loaded(path)
        if result is None:
            assert "\n" not in refused
            return
        found = json.loads(content)
        told = {key: result.summary[key] for key in found["summary"]}
        assert told == pytest.approx(found["summary"], abs=1e-9)
        if original["schema"] > 1:
            assert found == original

    holds()


@sizes
def test_damaged_results_on_the_command_line(examples: int, tmp_path: Path) -> None:
    good = (DATA / "results" / "schema-2.json").read_bytes()
    original = json.loads(good)
    path = tmp_path / "result.json"

    @checked(examples, st.tuples(damage(), st.sampled_from(["report", "verify", "show"])))
    def holds(case: tuple[Callable[[bytes], bytes], str]) -> None:
        change, name = case
        content = change(good)
        path.write_bytes(content)
        outcome = invoke(name, path)
        ends_well(outcome)
        if outcome.exit_code == 0:
            assert json.loads(content) == original

    holds()


# Checkpoints.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run."""
    folder = tmp_path_factory.mktemp("finished")
    outcome = invoke("run", "--method", "zeroshot", "--quick", "-q", "--runs-dir", folder)
    assert outcome.exit_code == 0, outcome.output
    (run,) = (folder / "mini" / "zeroshot").iterdir()
    return run


@sizes
def test_files_of_a_run(examples: int, finished: Path, tmp_path: Path) -> None:
    """Checkpoints, answers, the result: any damage is found by ``verify``."""
    run = Path(shutil.copytree(finished, tmp_path / finished.name))
    names = [
        "checkpoints/task-011.safetensors",
        "checkpoints/task-011.json",
        "correct/row-004.bits",
        "result.json",
        "config.yaml",
    ]

    @checked(examples, st.tuples(st.sampled_from(names), damage()))
    def holds(case: tuple[str, Callable[[bytes], bytes]]) -> None:
        name, change = case
        path = run / name
        good = path.read_bytes()
        try:
            path.write_bytes(change(good))
            outcome = invoke("verify", run)
            ends_well(outcome)
            if path.read_bytes() != good and path.suffix in (".safetensors", ".bits"):
                assert outcome.exit_code == 2, name
        finally:
            path.write_bytes(good)

    holds()
    assert invoke("verify", run).exit_code == 0
