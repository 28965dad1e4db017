"""Files that want to run code, or to be written somewhere else, tried through the command line."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from clbench import registry
from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.datamodules.fetching.unpack import unpack
from clbench.datamodules.mini.cache import cached
from clbench.datamodules.readers.cifar_pickle import read_pickle
from tests.small_runs import run_small, write_tasks


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


def copied(runs: Path, target: Path) -> Path:
    """A finished run of zero-shot CLIP, in another folder of runs."""
    (run,) = (runs / "mini" / "zeroshot").iterdir()
    return Path(shutil.copytree(run, target / run.relative_to(runs)))


@pytest.mark.parametrize("name", [".safetensors", ".json"])
def test_a_checkpoint_that_holds_code_is_damaged(
    name: str, trace: Path, quick_runs: Path, tmp_path: Path
) -> None:
    run = copied(quick_runs, tmp_path)
    bare(trace, run / "checkpoints" / f"task-011{name}")
    outcome = invoke("verify", run)
    assert outcome.exit_code == 2
    assert "WRONG checkpoint" in outcome.output
    assert not trace.exists()


@pytest.mark.parametrize("array", ["images", "labels"])
def test_a_cache_of_images_that_holds_code_is_rendered_again(
    array: str, trace: Path, tmp_path: Path
) -> None:
    good = {"images": np.zeros(2), "labels": np.ones(2)}
    bad = {**good, array: np.array([Payload(trace)], dtype=object)}
    cached(tmp_path, 1, "x", good, lambda: good)
    (path,) = tmp_path.rglob("x.npz")
    np.savez(path, **bad)
    found = cached(tmp_path, 1, "x", good, lambda: good)
    assert {key: value.tolist() for key, value in found.items()} == {
        "images": [0, 0],
        "labels": [1, 1],
    }
    assert not trace.exists()


def test_decoded_images_that_hold_code_are_decoded_again(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = write_tasks(tmp_path / "tasks", tasks=1, images=1)
    first = run_small("zeroshot", tasks, tmp_path / "first")
    caches = [*(tmp_path / "cache").rglob("*.npy")]
    assert caches
    for path in caches:
        np.save(path, np.array([Payload(trace)], dtype=object), allow_pickle=True)
    again = run_small("zeroshot", tasks, tmp_path / "second")
    assert again.accuracy == first.accuracy
    assert not trace.exists()


def test_json_that_is_a_pickle_runs_nothing(trace: Path, tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path / "tasks", tasks=1, images=1)
    first = run_small("zeroshot", tasks, tmp_path / "runs")
    (cache,) = (tmp_path / "runs").rglob("zero-shot-*.json")
    (result,) = (tmp_path / "runs").rglob("result.json")
    for path in (cache, result.with_name(".owner.json"), result.with_name("wandb.json")):
        bare(trace, path)
    again = run_small("zeroshot", tasks, tmp_path / "runs", fresh=True)
    assert again.accuracy == first.accuracy
    assert not trace.exists()


@pytest.mark.parametrize("option", ["train.lr", "method.rank", "benchmark.shots"])
def test_settings_on_the_command_line_run_nothing(option: str, trace: Path, tmp_path: Path) -> None:
    value = f"!!python/object/apply:pathlib.Path.touch [{trace}]"
    runs = tmp_path / "runs"
    outcome = invoke("run", "--quick", "--set", f"{option}={value}", "--runs-dir", runs)
    assert outcome.exit_code == 2
    assert not trace.exists()
    assert not runs.exists()


def test_a_recipe_beside_a_method_runs_nothing(trace: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from clbench.methods.zeroshot import ZeroShot\nclass Mine(ZeroShot):\n    name = 'mine'\n"
    )
    (tmp_path / "mine.yaml").write_text(f"train: !!python/object/apply:os.mkdir [{trace}]")
    outcome = invoke("run", "--quick", "--method", f"{tmp_path / 'mine.py'}:Mine")
    assert outcome.exit_code == 2
    assert "not valid YAML" in outcome.stderr
    assert not trace.exists()


def test_a_plug_in_is_loaded_only_when_it_is_asked_for(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is listed; only choosing it runs what was installed under it."""
    (tmp_path / "clbench_loud.py").write_text(
        f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        EntryPoint("loud", "clbench_loud:Loud", group)
        for group in ("clbench.methods", "clbench.benchmarks")
    ]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [p for p in points if p.group == group]
    )
    run_small("zeroshot", write_tasks(tmp_path / "tasks", tasks=1, images=1), tmp_path / "runs")
    assert {"loud"} <= set(registry.method_names()) & set(registry.benchmark_names())
    assert not trace.exists()
    assert invoke("run", "--method", "loud", "--quick").exit_code == 2
    assert trace.exists()


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


def test_a_run_directory_that_is_a_link_is_refused(quick_runs: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "result.json").write_text("precious")
    runs = tmp_path / "runs"
    run = copied(quick_runs, runs)
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
