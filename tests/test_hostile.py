"""Files that want to run code, or to be written somewhere else, tried through the command line."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.datamodules.fetching.unpack import unpack
from clbench.datamodules.readers.cifar_pickle import read_pickle


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.trace,))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A file that exists only after a payload has run."""
    return tmp_path / "the payload ran"


def test_the_payload_works_where_nobody_looks(trace: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()


def saved(trace: Path, path: Path) -> None:
    torch.save({"state_dict": {"weight": Payload(trace)}}, path)


def bare(trace: Path, path: Path) -> None:
    path.write_bytes(pickle.dumps(Payload(trace)))


def torchscript(trace: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/constants.pkl", pickle.dumps(()))
        archive.writestr("x/data.pkl", pickle.dumps(Payload(trace)))


@pytest.mark.parametrize("write", [saved, bare, torchscript])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
def test_weights_that_hold_code_are_refused(
    write: Callable[[Path, Path], None], suffix: str, trace: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{suffix}"
    write(trace, path)
    runs = tmp_path / "runs"
    outcome = invoke("run", "--quick", "--set", f"backbone.weights={path}", "--runs-dir", runs)
    assert outcome.exit_code == 2, outcome.output
    assert path.name in outcome.stderr
    assert "Traceback" not in outcome.output
    assert not trace.exists()
    assert not runs.exists()


def test_cifar_files_that_hold_code_are_refused(trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "train"
    path.write_bytes(pickle.dumps({"data": Payload(trace), "fine_labels": [1]}))
    with pytest.raises(ClbenchError):
        read_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "text",
    [
        "train: !!python/object/apply:pathlib.Path.touch [{trace}]",
        "seed: !!python/object/new:os.system ['touch {trace}']",
        "!!python/name:os.system",
    ],
)
def test_yaml_runs_nothing(text: str, trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("{trace}", str(trace)))
    outcome = invoke("run", "--config", path, "--runs-dir", tmp_path / "runs")
    assert outcome.exit_code == 2
    assert "not valid YAML" in outcome.stderr
    assert not trace.exists()


@pytest.mark.parametrize("name", [".safetensors", ".json"])
def test_a_checkpoint_that_holds_code_is_damaged(name: str, trace: Path, tmp_path: Path) -> None:
    outcome = invoke("run", "--method", "zeroshot", "--quick", "-q", "--runs-dir", tmp_path)
    assert outcome.exit_code == 0, outcome.output
    (run,) = (tmp_path / "mini" / "zeroshot").iterdir()
    bare(trace, run / "checkpoints" / f"task-011{name}")
    outcome = invoke("verify", run)
    assert outcome.exit_code == 2
    assert "WRONG checkpoint" in outcome.output
    assert not trace.exists()


NAMES = ["../outside", "/tmp/clbench-outside", "a/../../outside", "..\\outside", "C:\\outside"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_write_nothing_outside(name: str, kind: str, tmp_path: Path) -> None:
    archive = tmp_path / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(name, b"gotcha")
    else:
        with tarfile.open(archive, "w") as packed:
            member = tarfile.TarInfo(name)
            member.size = 6
            packed.addfile(member, io.BytesIO(b"gotcha"))
    with pytest.raises(ClbenchError, match="would leave its folder"):
        unpack(archive, tmp_path / "in" / "side")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written == [archive]
    assert not Path("/tmp/clbench-outside").exists()


def test_an_archive_cannot_write_through_a_link(tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as packed:
        link = tarfile.TarInfo("door")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        packed.addfile(link)
        member = tarfile.TarInfo("door/gotcha")
        member.size = 6
        packed.addfile(member, io.BytesIO(b"gotcha"))
    with pytest.raises(ClbenchError):
        unpack(archive, tmp_path / "in" / "side")
    assert not (tmp_path / "gotcha").exists()


def test_an_archive_that_explodes_is_stopped(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for i in range(40):
            packed.writestr(f"{i}", bytes(2**22))
    with pytest.raises(ClbenchError, match="more than 20 times its size"):
        unpack(archive, tmp_path / "in")
    written = sum(path.stat().st_size for path in (tmp_path / "in").rglob("*"))
    assert written < 100 * 2**20


def test_a_run_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "result.json").write_text("precious")
    runs = tmp_path / "runs"
    probe = invoke("run", "--method", "zeroshot", "--quick", "-q", "--runs-dir", runs)
    (run,) = (runs / "mini" / "zeroshot").iterdir()
    assert probe.exit_code == 0
    for target in (run, run.parent):
        moved = target.rename(tmp_path / "moved")
        target.symlink_to(home)
        outcome = invoke("run", "--method", "zeroshot", "--quick", "-q", "--runs-dir", runs)
        assert outcome.exit_code == 2, outcome.output
        assert "symbolic link" in outcome.stderr
        target.unlink()
        moved.rename(target)
    assert (home / "result.json").read_text() == "precious"
    assert [path.name for path in home.iterdir()] == ["result.json"]


def test_control_characters_in_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    outcome = invoke("metrics", tmp_path / "a\x1b[2J\x07b.csv")
    assert outcome.exit_code == 2
    assert "\x1b" not in outcome.stderr
    assert "\\x1b[2J\\x07b.csv" in outcome.stderr
