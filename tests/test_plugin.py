"""Methods from another package: installed, found, checked, configured, stopped and resumed."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.clip.model import CLIP
from clbench.testing.driving import run_task, scores
from clbench.testing.toys import make_clip, make_tasks
from tests.engine.rundir.test_resuming import outcome
from tests.small_runs import write_tasks

ROOT = Path(__file__).parent.parent
METHODS = ("replay", "ridge-head", "text-router", "wise-ft")
SMALL = {"replay": {"capacity": 12, "replayed": 6}, "text-router": {"rank": 4}}

Python = Callable[..., str]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Runs Python, as from anywhere, where the package is installed beside clbench."""
    source, site = (tmp_path_factory.mktemp(name) for name in ("source", "site"))
    shutil.copytree(ROOT / "tests/plugin", source, dirs_exist_ok=True)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    install = [sys.executable, "-m", "pip", "install", *options, str(source)]
    subprocess.run(install, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    paths = os.pathsep.join([str(site), str(ROOT)])

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"},
            cwd=site,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_every_method_keeps_the_contract(python: Python) -> None:
    python(
        "-c",
        "from clbench import registry\n"
        "from clbench.testing import check_method\n"
        f"small = {SMALL!r}\n"
        f"for name in {METHODS!r}:\n"
        "    assert registry.method(name).__module__.startswith('clbench_examples.')\n"
        "    check_method(registry.method(name), small.get(name))",
    )


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package and its entry points on the path, as installing it leaves them, without pip."""
    source = ROOT / "tests/plugin"
    shutil.copytree(source / "clbench_examples", tmp_path / "clbench_examples")
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["clbench.methods"]
    written = tmp_path / "clbench_examples-0.1.0.dist-info"
    written.mkdir()
    (written / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {target}" for name, target in points.items()]
    (written / "entry_points.txt").write_text("\n".join(["[clbench.methods]", *lines]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("clbench_examples")]:
        del sys.modules[name]


@pytest.mark.usefixtures("_installed")
def test_commands_name_the_methods_and_what_they_need() -> None:
    def printed(*arguments: str) -> str:
        outcome = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*arguments])
        assert outcome.exit_code == 0, outcome.output
        return outcome.stdout

    listed, shown = printed("list", "methods"), printed("show", "replay")
    for name in METHODS:
        (row,) = [line for line in listed.splitlines() if line.startswith(f"│ {name} ")]
        assert ("replay" in row.split("│")[3]) == (name == "replay")
    assert "Images kept at most." in shown
    assert "recipe methods/replay:" in shown
    assert "lr: 0.0005" in shown


@pytest.mark.slow
def test_an_installed_package_is_found(python: Python) -> None:
    code = "from clbench.cli.app import app\napp(['list', 'methods'], standalone_mode=False)"
    listed = python("-c", code)
    assert all(f"│ {name} " in listed for name in METHODS)


@pytest.mark.slow
def test_the_recipe_beside_a_module_is_applied(python: Python) -> None:
    printed = python(
        "-c",
        "from clbench import config\n"
        "for benchmark in ('mini', 'mtil'):\n"
        "    settings, _ = config.resolve('replay', benchmark)\n"
        "    print(settings.method.params['capacity'], settings.train.lr, settings.train.warmup)\n"
        "settings, _ = config.resolve('replay', 'mini', overrides={'train.lr': 1e-3})\n"
        "print(settings.train.lr, settings.method.name)",
    )
    assert printed.splitlines() == ["200 0.0005 0.1", "500 1e-05 100.0", "0.001 replay"]


@pytest.mark.slow
def test_runs_that_were_cut_off_end_like_those_that_were_not(
    python: Python, tmp_path: Path
) -> None:
    tasks = write_tasks(tmp_path / "tasks", tasks=3)
    python("-m", "tests.plugin_child", f"folder:{tasks}", str(tmp_path), *METHODS)
    for name in METHODS:
        assert outcome(tmp_path / name / "cut") == outcome(tmp_path / name / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_so_do_those_on_the_embedded_benchmark(name: str, python: Python, tmp_path: Path) -> None:
    python("-m", "tests.plugin_child", "mini", str(tmp_path), name)
    assert outcome(tmp_path / name / "cut") == outcome(tmp_path / name / "whole")


def test_text_features_of_every_expert_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class of its layers says what they depend on, so each expert encodes a text once."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/plugin"))
    module = importlib.import_module("clbench_examples.text_router")
    method = module.TextRouter(rank=2)
    method.prepare(make_clip())
    tasks = make_tasks(3, 4)
    for task, data in tasks:
        run_task(method, task, data, steps=3)
    encoded: list[int] = []
    encode = type(method.model).encode_text

    def counting(model: CLIP, tokens: Tensor) -> Tensor:
        encoded.append(len(tokens))
        return encode(model, tokens)

    monkeypatch.setattr(type(method.model), "encode_text", counting)
    classes = tasks[0][0].classes + tasks[1][0].classes
    images = torch.cat([data.images for _, data in tasks])
    first = scores(method, images, classes)
    assert len(encoded) == 2, "both experts were asked"
    assert torch.equal(scores(method, images, classes), first)
    assert len(encoded) == 2, "and neither a second time"

    with torch.no_grad():
        features = method.model.encode_image(images)
        experts = method.model.similarities(features, method.means).argmax(dim=1)
        for i, expert in enumerate(experts.tolist()):
            for layer in method.layers:
                layer.chosen = expert
            texts = method.model._class_features(classes)
            alone = method.model.similarities(features[i : i + 1], texts)[0]
            torch.testing.assert_close(first[i], alone, atol=1e-4, rtol=1e-5)
