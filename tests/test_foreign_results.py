"""Results that somebody else made: whatever code they name, looking at them runs none of it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clbench.cli.app import app
from clbench.clip.weights.packages import find_module, packaged_file
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.core.settings import RunSettings
from tests.small_runs import run_small, write_tasks

HOSTILE = """
from pathlib import Path
Path({trace!r}).touch()
from clbench.methods.zeroshot import ZeroShot
class Mine(ZeroShot):
    name = "mine"
"""
PACKAGE = "clbench_foreign_code"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    tasks = write_tasks(folder / "tasks", images=2)
    run_small("zeroshot", tasks, folder / "runs", train__steps=1)
    (found,) = (folder / "runs").rglob("result.json")
    return found.parent


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A file that exists only after foreign code has run."""
    return tmp_path / "foreign code ran"


@pytest.fixture
def package(trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package, with one inside it, that leave a trace when they are imported."""
    folder = tmp_path / PACKAGE
    (folder / "inner").mkdir(parents=True)
    for place in (folder, folder / "inner"):
        (place / "__init__.py").write_text(HOSTILE.format(trace=str(trace)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def forge(sound: Path, runs: Path, **sections: dict[str, object]) -> Path:
    """A sound run whose configuration names something else, with hashes that agree."""
    result = RunResult.load(sound)
    config = {
        key: {**value, **sections[key]} if key in sections else value
        for key, value in result.config.items()
    }
    digest = RunSettings.model_validate(config).fingerprint()
    run = runs / f"seed{result.seed}-{digest}"
    shutil.copytree(sound, run)
    name = config["method"]["name"]
    method = result.method.model_copy(update={"name": name})
    changes = {"config": config, "config_hash": digest, "method": method}
    result.model_copy(update=changes).save(run / "result.json")
    return run


def look(run: Path, out: Path) -> Iterator[Result]:
    """Everything that one does with a result of somebody else."""
    yield invoke("show", run)
    yield invoke("verify", run)
    yield invoke("verify", run, "--evaluate")
    yield invoke("rerun", run, "-q", "--runs-dir", out / "again")
    yield invoke("report", run, "--published", "--out", out / "tables")


METHODS: dict[str, Callable[[Path], str]] = {
    "module": lambda package: f"{PACKAGE}:Mine",
    "module inside": lambda package: f"{PACKAGE}.inner:Mine",
    "file": lambda package: f"{package / '__init__.py'}:Mine",
    "file nearby": lambda package: f"{PACKAGE}/__init__.py:Mine",
}


@pytest.mark.parametrize("kind", METHODS)
def test_a_result_that_names_code_runs_none(
    kind: str, package: Path, trace: Path, sound: Path, tmp_path: Path
) -> None:
    name = METHODS[kind](package)
    run = forge(sound, tmp_path / "runs", method={"name": name})
    outcomes = [*look(run, tmp_path / "out")]
    assert not trace.exists()
    for number in (2, 3):
        assert outcomes[number].exit_code == 2
        assert "--trust-code" in outcomes[number].output
        assert "Traceback" not in outcomes[number].output


def test_code_that_is_trusted_is_run(
    package: Path, trace: Path, sound: Path, tmp_path: Path
) -> None:
    run = forge(sound, tmp_path / "runs", method={"name": f"{PACKAGE}:Mine"})
    outcome = invoke("rerun", run, "-q", "--runs-dir", tmp_path / "again", "--trust-code")
    assert outcome.exit_code == 0, outcome.output
    assert trace.exists()
    assert "the source of method" in outcome.output


@pytest.mark.parametrize("place", [PACKAGE, f"{PACKAGE}.inner"])
def test_weights_inside_a_package_are_found_without_importing_it(
    place: str, package: Path, trace: Path, sound: Path, tmp_path: Path
) -> None:
    run = forge(sound, tmp_path / "runs", backbone={"weights": f"{place}:w.safetensors"})
    outcomes = [*look(run, tmp_path / "out")]
    assert not trace.exists()
    assert str(package) in outcomes[3].output
    assert "does not exist" in outcomes[3].output
    assert packaged_file(f"{place}:w.safetensors") is not None
    assert find_module(place) is not None
    assert not trace.exists()
    assert not any(name.startswith(PACKAGE) for name in sys.modules)


def test_a_folder_without_a_module_inside_a_package_is_found(package: Path, trace: Path) -> None:
    (package / "plain" / "deep").mkdir(parents=True)
    place = package / "plain" / "deep" / "w.safetensors"
    assert packaged_file(f"{PACKAGE}.plain.deep:w.safetensors") == place
    (package / "plain" / "code.py").touch()
    assert find_module(f"{PACKAGE}.plain.code").origin == str(package / "plain" / "code.py")
    assert find_module(f"{PACKAGE}.plain.other") is None
    assert not trace.exists()


@pytest.mark.parametrize("file", ["../w.safetensors", "/etc/passwd", "a/../../w.safetensors"])
def test_weights_inside_a_package_lie_inside_it(file: str, package: Path) -> None:
    with pytest.raises(ClbenchError, match="leads out of its package"):
        packaged_file(f"{PACKAGE}:{file}")


@pytest.mark.parametrize("name", ["no_such_package_1", f"{PACKAGE}.nothing", "json.decoder"])
def test_what_is_no_package_holds_no_weights(name: str, package: Path, trace: Path) -> None:
    with pytest.raises(ClbenchError, match="is not installed"):
        packaged_file(f"{name}:w.safetensors")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["os", "os.system", "builtins", "..", "", "-", "clbench.methods"])
def test_a_result_names_only_registered_methods(name: str, sound: Path, tmp_path: Path) -> None:
    run = forge(sound, tmp_path / "runs", method={"name": name})
    outcome = invoke("rerun", run, "-q", "--runs-dir", tmp_path / "again")
    assert outcome.exit_code == 2
    assert "cannot be found by name" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_a_benchmark_in_a_result_is_no_code(
    package: Path, trace: Path, sound: Path, tmp_path: Path
) -> None:
    run = forge(sound, tmp_path / "runs", benchmark={"name": f"{PACKAGE}:Mine"})
    outcomes = [*look(run, tmp_path / "out")]
    assert not trace.exists()
    assert "unknown benchmark" in outcomes[3].output
