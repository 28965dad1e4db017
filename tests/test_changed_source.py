"""A method that was edited is not mistaken for the one that a run was made with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import clbench
from clbench import api, config, registry
from clbench.cli.app import app
from clbench.core.errors import ClbenchError, Stopped
from clbench.core.method import Method
from clbench.core.results.result import ASIDE, RunResult
from clbench.tidy import find_results
from tests.engine.rundir.test_resuming import Signal, folder
from tests.engine.rundir.test_sources import forget
from tests.small_runs import run_small, write_tasks

MINE = '''"""A method in a file of its own."""

from clbench.clip.losses import classification
from clbench.core.method import Method
{imports}

class Mine(Method):
    name = "mine"
    paper = "https://example.org"

    def prepare(self, model):
        super().prepare(model)
        model.network.visual.proj.requires_grad_(True)

    def loss(self, batch):
        return {{"classification": {factor} * classification(self.model, batch)}}
'''


def write(path: Path, factor: str = "1.0", imports: str = "") -> Path:
    path.write_text(MINE.format(factor=factor, imports=imports))
    for cache in path.parent.rglob("__pycache__"):  # times are compared by whole seconds
        for file in cache.iterdir():
            file.unlink()
    return path


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks") / "tasks")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path
    forget()


def from_file(path: Path) -> str:
    return f"{path}:Mine"


def from_python(path: Path) -> type[Method]:
    """The class as a notebook has it that was started anew."""
    forget()
    return __import__(path.stem).Mine


def refused(run: Callable[[], Any]) -> str:
    with pytest.raises(ClbenchError) as caught:
        run()
    return str(caught.value)


@pytest.mark.parametrize("name", [from_file, from_python], ids=["file", "class"])
def test_a_finished_run_is_not_handed_out_for_another_source(
    name: Callable[[Path], Any], tasks: Path, here: Path
) -> None:
    file, runs = write(here / "mine.py"), here / "runs"
    first = run_small(name(file), tasks, runs)
    assert run_small(name(file), tasks, runs).provenance == first.provenance, "not run again"

    write(file, factor="2.0")
    message = refused(lambda: run_small(name(file), tasks, runs))
    assert "\n" not in message
    assert first.method.source in message
    assert "--fresh" in message
    anew = run_small(name(file), tasks, runs, fresh=True)
    assert anew.method.source in message
    assert anew.method.source != first.method.source
    assert anew.config_hash == first.config_hash
    assert anew.status == "complete"

    kept = [*runs.rglob(f"{ASIDE}/*/result.json")]
    assert [RunResult.load(path).method.source for path in kept] == [first.method.source]
    found = find_results([runs])
    assert [result.method.source for result in found] == [anew.method.source]
    assert run_small(name(file), tasks, runs).provenance == anew.provenance

    write(file)
    message = refused(lambda: run_small(name(file), tasks, runs))
    assert f"({anew.method.source} is now {first.method.source})" in message


def test_a_run_that_was_stopped_is_not_finished_with_another_source(
    tasks: Path, here: Path
) -> None:
    file, runs = write(here / "mine.py"), here / "runs"
    whole = run_small(from_file(file), tasks, here / "whole")
    with pytest.raises(Stopped):
        run_small(from_file(file), tasks, runs, reporter=Signal(task=1, step=2))
    before = (folder(runs) / "result.json").read_bytes()
    write(file, factor="2.0")
    assert "--fresh" in refused(lambda: run_small(from_file(file), tasks, runs))
    assert (folder(runs) / "result.json").read_bytes() == before
    write(file)
    assert run_small(from_file(file), tasks, runs).accuracy == whole.accuracy


@pytest.mark.parametrize("name", [from_file, from_python], ids=["file", "class"])
def test_a_module_beside_the_file_belongs_to_the_source(
    name: Callable[[Path], Any], tasks: Path, here: Path
) -> None:
    beside = here / "beside.py"
    beside.write_text("FACTOR = 1.0\n")
    file = write(here / "mine.py", factor="FACTOR", imports="from beside import FACTOR\n")
    run_small(name(file), tasks, here / "runs")
    beside.write_text("FACTOR = 2.0\n")
    forget()
    write(file, factor="FACTOR", imports="from beside import FACTOR\n")
    assert "--fresh" in refused(lambda: run_small(name(file), tasks, here / "runs"))


def test_a_file_that_is_edited_during_the_run_is_another_afterwards(
    tasks: Path, here: Path
) -> None:
    class Editing(Signal):
        def training(self, task: int, steps: int) -> None:
            write(file, factor="2.0")

    file = write(here / "mine.py")
    first = run_small(from_file(file), tasks, here / "runs", reporter=Editing())
    message = refused(lambda: run_small(from_file(file), tasks, here / "runs"))
    assert f"({first.method.source} is now " in message


def test_a_result_that_does_not_say_which_source_is_not_trusted(tasks: Path, here: Path) -> None:
    file, runs = write(here / "mine.py"), here / "runs"
    result = run_small(from_file(file), tasks, runs)
    path = folder(runs) / "result.json"
    older = result.model_copy(update={"method": result.method.model_copy(update={"source": ""})})
    older.save(path)
    message = refused(lambda: run_small(from_file(file), tasks, runs))
    assert "is not recorded in it" in message
    assert "\n" not in message
    assert run_small(from_file(file), tasks, runs, fresh=True).method.source


def test_the_command_line_takes_a_file_from_the_working_directory(
    tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "mine.py")
    arguments = ["run", "--method", "mine.py:Mine", "--benchmark", f"folder:{tasks}", "-q"]
    arguments += ["--backbone", "mini", "--root", str(tmp_path / "cache")]
    for setting in ("train.steps=2", "train.batch_size=6", "train.warmup=0", "device=cpu"):
        arguments += ["--set", setting]

    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    run_path = folder(tmp_path / "runs")
    assert run_path.parent.name == "mine.py-Mine"
    assert RunResult.load(run_path).method.name == "mine.py:Mine"
    write(file, factor="2.0")
    second = CliRunner().invoke(app, arguments)
    assert second.exit_code == 2
    (line,) = second.stderr.splitlines()
    assert line.startswith("clbench: ")
    assert "--fresh" in line
    assert CliRunner().invoke(app, [*arguments, "--fresh"]).exit_code == 0
    assert len([*(tmp_path / "runs").rglob("result.json")]) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.py:Mine", "there is no file"),
        ("mine.py:Yours", "has no attribute 'Yours'"),
        ("broken.py:Mine", "cannot be loaded: ModuleNotFoundError: No module named 'nowhere'"),
        ("mine.py:FACTOR", "is not a subclass"),
    ],
)
def test_a_file_that_does_not_hold_a_method_is_named(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.py", imports="FACTOR = 1\n")
    (tmp_path / "broken.py").write_text("import nowhere\n")
    message = refused(lambda: registry.method(name))
    assert expected in message
    assert "\n" not in message


def in_a_notebook(factor: str = "1.0") -> type[Method]:
    """The class as a cell of a notebook defines it: no module holds it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(MINE.format(factor=factor, imports=""), "<cell>", "exec"), namespace)
    return namespace["Mine"]


def test_a_class_from_a_notebook_is_repeated_with_the_class_in_hand(
    tasks: Path, tmp_path: Path
) -> None:
    cls, runs = in_a_notebook(), tmp_path / "runs"
    first = run_small(cls, tasks, runs)
    assert first.method.name == "mine"
    assert run_small(in_a_notebook(), tasks, runs).provenance == first.provenance
    assert "--fresh" in refused(lambda: run_small(in_a_notebook("2.0"), tasks, runs))

    again: dict[str, Any] = {"runs_dir": tmp_path / "again", "quiet": True}
    message = refused(lambda: api.rerun(folder(runs), **again))
    assert "clbench.rerun(path, method=Class)" in message
    assert "\n" not in message
    result, differences = api.rerun(folder(runs), method=cls, **again)
    assert differences == []
    assert result.accuracy == first.accuracy
    _, differences = api.rerun(
        folder(runs), method=in_a_notebook("2.0"), runs_dir=tmp_path / "other", quiet=True
    )
    assert differences[0] == "the source of method 'mine' is another than in the run"


def test_a_class_from_a_file_is_repeated_by_its_name(tasks: Path, here: Path) -> None:
    file, runs = write(here / "mine.py"), here / "runs"
    first = run_small(registry.method(from_file(file)), tasks, runs)
    assert first.method.name == from_file(file), "the class knows its file"
    settings, cls = config.revive(first.config, trust_code=True)
    assert (settings.method.name, cls.name) == (from_file(file), "mine")
    again: dict[str, Any] = {"runs_dir": here / "again", "quiet": True}
    assert "--trust-code" in refused(lambda: api.rerun(folder(runs), **again))
    result, differences = api.rerun(folder(runs), trust_code=True, **again)
    assert (result.accuracy, differences) == (first.accuracy, [])


def test_the_names_that_the_messages_mention_exist() -> None:
    assert callable(clbench.rerun)
