"""DomainNet and other sequences whose tasks have the same classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import clbench
from clbench.cli.app import app
from clbench.clip.heads import LinearHead
from clbench.core.errors import ClbenchError
from clbench.core.task import Setting
from clbench.datamodules import domainnet, folder
from clbench.datamodules.catalogue.catalogue import data_set, declared_counts
from clbench.datamodules.pixels.rgb import decode
from clbench.datamodules.readers.domains import DOMAINS
from clbench.datamodules.readers.read import read
from clbench.datamodules.sequence import TaskSequence
from tests.datamodules.disk_formats import Counts, write_image, write_lines
from tests.small_data import write_small_clip

SIZE = 32
CLASSES = ("aircraft_carrier", "airplane", "t-shirt")


def write_domainnet(root: Path, lists: str = "") -> Counts:
    """Small DomainNet: zip folders and the cleaned lists, in which one class has no test image."""
    for number, domain in enumerate(DOMAINS):
        parts: dict[str, list[str]] = {"train": [], "test": []}
        for label, name in enumerate(CLASSES):
            for n in range(5):
                file = f"{domain}/{name}/{domain}_{label + 1:03d}_{n + 1:06d}.jpg"
                write_image(root / "domainnet" / file, label, 10 * number + n)
                part = "train" if n < 3 or (domain == "painting" and label == 2) else "test"
                parts[part].append(f"{file} {label}")
        for part, lines in parts.items():
            write_lines(root / "domainnet" / lists / f"{domain}_{part}.txt", lines[::-1])
    return 3, 6 * 9 + 2, 6 * 6 - 2


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("data")
    with declared_counts({"DomainNet": write_domainnet(path)}):
        yield path


def build(root: Path, **options: Any) -> TaskSequence:
    return domainnet.tasks(data_root=str(root), image_size=SIZE, **options)


def test_every_image_stands_where_its_list_has_it(root: Path) -> None:
    sequence = build(root)
    for task, domain in enumerate(DOMAINS):
        for part, images in (
            ("train", sequence.train_set(task)),
            ("test", sequence.test_set(task)),
        ):
            lines = (root / "domainnet" / f"{domain}_{part}.txt").read_text().splitlines()
            samples: Any = images.file.samples  # type: ignore[attr-defined]
            rows = zip(samples.files, samples.labels, strict=True)
            assert [f"{file} {label}" for file, label in rows] == lines
            path = root / "domainnet" / lines[0].split()[0]
            pixels = np.asarray(decode(path, path.read_bytes()))
            np.testing.assert_array_equal(np.asarray(samples.image(0)), pixels)


def test_the_tasks_are_the_domains_in_the_published_order(root: Path) -> None:
    benchmark = build(root).benchmark
    assert [task.name for task in benchmark.tasks] == [
        *("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
    ]
    assert (benchmark.setting, benchmark.order) == (Setting.DOMAIN_INCREMENTAL, "published")
    for task in benchmark.tasks:
        assert task.classes.prompts[0] == ("a photo of a aircraft carrier.",)
        assert task.classes.ids == (0, 1, 2)
    given = build(root, order=["real", "sketch"]).benchmark
    assert ([task.name for task in given.tasks], given.order) == (
        ["real", "sketch"],
        "real, sketch",
    )
    with pytest.raises(ClbenchError, match=r"unknown domain in benchmark\.order 'photo'"):
        build(root, order=["photo"])
    with pytest.raises(ClbenchError, match=r"unknown benchmark\.order 'publishd': did you mean"):
        build(root, order="publishd")
    with pytest.raises(ClbenchError, match="each once"):
        build(root, order=["real", "real"])


def test_lists_may_lie_where_dassl_wants_them_and_are_recorded(root: Path, tmp_path: Path) -> None:
    counts = write_domainnet(tmp_path, "splits")
    with declared_counts({"DomainNet": counts}):
        there, here = (read(data_set("DomainNet"), place) for place in (tmp_path, root))
        assert there.train.digest() == here.train.digest()
        found = build(tmp_path).list_hashes
    content = (tmp_path / "domainnet" / "splits" / "real_test.txt").read_bytes()
    assert found["DomainNet/real_test.txt"] == hashlib.sha256(content).hexdigest()
    assert len(found) == 12


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("clipart/airplane/a.jpg 0", "calls class 0 'airplane', others 'aircraft_carrier'"),
        ("real/airplane/a.jpg 1", "unexpected line"),
        ("clipart/../x/a.jpg 1", "unexpected line"),
        ("clipart/airplane/none.jpg 1", r"none\.jpg, listed in .* is missing"),
        ("clipart/zebra/a.jpg 7", "label 7, counted from 0, but there are 3 classes"),
    ],
)
def test_damaged_lists_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with declared_counts({"DomainNet": write_domainnet(tmp_path)}):
        path = tmp_path / "domainnet" / "clipart_test.txt"
        path.write_text(path.read_text() + f"{line}\n")
        with pytest.raises(ClbenchError, match=message):
            read(data_set("DomainNet"), tmp_path)


def test_mixed_batches_number_a_class_alike_in_all_domains(root: Path) -> None:
    loader = build(root).joint_loader(batch_size=16, steps=[2] * 6, seed=0)
    labels = torch.cat([labels for _, labels in loader])
    assert set(labels.tolist()) == {0, 1, 2}


def test_a_class_learned_again_has_one_row() -> None:
    head = LinearHead(2)
    for value in (1.0, 2.0):
        head.start(torch.full((2, 2), value))
        head.keep([0, 1])
    assert head.ids.tolist() == [0, 1]
    assert head.rows.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_folders_of_other_classes_are_no_domains(tmp_path: Path) -> None:
    for task, names in (("photos", ("cat", "dog")), ("sketches", ("cat", "cow"))):
        for part in ("train", "test"):
            for name in names:
                write_image(tmp_path / "own" / task / part / name / "a.jpg", 0, 0)
    given: Any = {"path": str(tmp_path / "own"), "data_root": str(tmp_path), "image_size": SIZE}
    with pytest.raises(ClbenchError, match="only one of 'photos' and 'sketches' has 'cow'"):
        folder.tasks(setting="domain-incremental", **given)
    (tmp_path / "own/sketches/train/cow").rename(tmp_path / "own/sketches/train/dog")
    (tmp_path / "own/sketches/test/cow").rename(tmp_path / "own/sketches/test/dog")
    benchmark = folder.tasks(setting="domain-incremental", **given).benchmark
    assert [task.classes.ids for task in benchmark.tasks] == [(0, 1), (0, 1)]


def run(root: Path, tmp_path: Path, method: str, *options: str) -> Result:
    backbone = write_small_clip(tmp_path / "small.safetensors")
    command = ["run", "--method", method, "--benchmark", "domainnet", "--backbone", str(backbone)]
    command += ["--root", str(root), "--runs-dir", str(tmp_path / "runs"), "-q"]
    command += ["--set", "train.steps=1", "--set", "benchmark.order=[real, sketch]"]
    return CliRunner().invoke(app, [*command, *options])


@pytest.mark.parametrize("method", ["finetune", "joint"])
def test_a_run_has_all_cells_and_no_transfer(method: str, root: Path, tmp_path: Path) -> None:
    outcome = run(root, tmp_path, method)
    assert outcome.exit_code == 0, outcome.output + outcome.stderr
    (path,) = (tmp_path / "runs").rglob("result.json")
    result = clbench.load_result(path)
    assert not np.isnan(result.matrix.values).any()
    assert result.summary["transfer"] is None
    assert result.summary["last"] == pytest.approx(
        float(np.average(result.matrix.values[-1], weights=result.accuracy.counts))
    )
    assert len(result.data.splits["DomainNet/real_train.txt"]) == 16


def test_methods_that_take_classes_to_be_new_are_refused(root: Path, tmp_path: Path) -> None:
    outcome = run(root, tmp_path, "er")
    assert outcome.exit_code == 2
    assert "method 'er' takes the classes of a task to be new" in outcome.stderr
