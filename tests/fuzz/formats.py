"""The formats that clbench reads from elsewhere: how to make a damaged one, and how it is read."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import scipy.io
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from clbench import config
from clbench.cli.show_run import describe_run
from clbench.clip.weights.files import read_checkpoint
from clbench.clip.weights.loading import load_clip
from clbench.core.errors import ClbenchError
from clbench.core.files import content_hash
from clbench.core.foreign.console import SafeConsole
from clbench.core.results.correctness import SUFFIX, encode_row, read_rows
from clbench.core.results.result import RunResult
from clbench.core.settings import BackboneSettings
from clbench.datamodules.fetching.unpack import unpack
from clbench.datamodules.pixels.samples import Samples
from clbench.datamodules.readers.arrays import read_idx
from clbench.datamodules.readers.cifar_pickle import read_pickle
from clbench.datamodules.readers.matlab import read_flowers
from clbench.report.console import render_console
from clbench.report.tables.matrix_csv import read_matrix_csv
from tests.datamodules.disk_formats import python2_pickle
from tests.fuzz.strategies import KEYS, VALUES, changed_value, damage
from tests.made_up import make_result

Read = Callable[[Any, Path], object]
Damage = Callable[[bytes], bytes]
LONGEST = 5000
"""Characters of a message."""


@dataclass(frozen=True)
class Format:
    """A format, and how it is put to the test.

    Attributes:
        title: what is read.
        inputs: what files hold, or values.
        read: reads an input, with an empty folder to put it into.
    """

    title: str
    inputs: st.SearchStrategy[Any]
    read: Read


def is_read(kind: Format, content: Any, folder: Path) -> bool:
    """Whether an input is read; else it is refused with a message that is fit to be shown.

    Raises:
        Exception: anything else: users would see a traceback.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)  # PIL's, of odd tags
            kind.read(content, folder)
    except ClbenchError as error:
        if len(str(error)) > LONGEST:
            raise ValueError(f"a message of {len(str(error))} characters") from error
        return False
    return True


def damaged(*contents: bytes) -> st.SearchStrategy[bytes]:
    """One of the contents with damage done to it once or twice."""

    def apply(number: int, first: Damage, second: Damage | None) -> bytes:
        content = first(contents[number])
        return content if second is None else second(content)

    return st.builds(apply, st.integers(0, len(contents) - 1), damage(), st.none() | damage())


def from_file(name: str, read: Callable[[Path], object]) -> Read:
    """Write the input to a file of that name and read it."""

    def put_and_read(content: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return put_and_read


# Weights

CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "patch_size": 4, "width": 8, "layers": 1, "head_width": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 3, "width": 8, "heads": 2, "layers": 1},
}
METADATA: dict[str, Any] = {
    "model_cfg": CONFIG,
    "token_ids": [5, 49406, 49407],
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.2, 0.2],
}


@cache
def state() -> dict[str, torch.Tensor]:
    """Weights that fit the configuration."""
    with torch.random.fork_rng():
        tensors: dict[str, torch.Tensor] = open_clip.CLIP(**CONFIG).state_dict()
    return tensors


def changed(tree: dict[str, Any]) -> st.SearchStrategy[Any]:
    """The tree with one or two leaves exchanged."""
    picks = st.lists(st.tuples(st.integers(0, 10**6), VALUES), min_size=1, max_size=2)

    def apply(changes: list[tuple[int, Any]]) -> Any:
        copy = json.loads(json.dumps(tree))
        for pick, value in changes:
            changed_value(copy, pick, value)
        return copy

    return picks.map(apply)


def load_described(metadata: Any, folder: Path) -> object:
    texts = {key: json.dumps(value, default=str) for key, value in metadata.items()}
    (folder / "w.safetensors").write_bytes(save(state(), texts))
    return load_clip(BackboneSettings(weights=str(folder / "w.safetensors")))


def saved(weights: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


# Archives


def tars() -> list[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a/b.jpg", "c" * 150):
            info = tarfile.TarInfo(name)
            info.size = 300
            tar.addfile(info, io.BytesIO(bytes(range(100)) * 3))
    plain = buffer.getvalue()
    return [plain, gzip.compress(plain), bz2.compress(plain), lzma.compress(plain)]


def zips() -> list[bytes]:
    made = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("a/b.jpg", bytes(range(100)) * 3)
            archive.writestr("c/", b"")
        made.append(buffer.getvalue())
    return made


@st.composite
def named_tars(draw: st.DrawFn) -> bytes:
    """Archives whose members have any name and kind."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name in draw(st.lists(st.text(max_size=20), min_size=1, max_size=4)):
            info = tarfile.TarInfo("a")
            info.pax_headers = {"path": draw(st.sampled_from(["", "../", "/", "a\0", "C:"])) + name}
            info.type = draw(st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE]))
            tar.addfile(info)
    return buffer.getvalue()


# Images


def images() -> list[bytes]:
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 255, (9, 11, 3), dtype=np.uint8))
    made = []
    for kind in ("jpeg", "png", "bmp", "webp", "tiff"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        made.append(buffer.getvalue())
    return made


def decode(path: Path) -> object:
    return Samples(np.zeros(1, dtype=np.int64), path.parent, (path.name,)).image(0)


# Results


def resealed(result: Any) -> bytes:
    """A result file with the right hash, whatever it holds."""
    result = json.loads(json.dumps(result, default=str, skipkeys=True))
    text = json.dumps({**result, "sha256": content_hash(result)})
    return text.encode("utf-8", "surrogatepass")


def whole_result() -> dict[str, Any]:
    provenance = {"packages": {"torch": "2"}, "resumed": [], "threads": 1, "git": {"commit": "a"}}
    result: dict[str, Any] = json.loads(make_result(provenance=provenance).to_json())
    result.pop("sha256")
    return result


def show_result(path: Path) -> object:
    result = RunResult.load(path)
    console = SafeConsole(file=io.StringIO(), width=100)
    console.print(describe_run(path))
    console.print(render_console([result]))
    return result


# Annotations


def mat() -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"labels": np.array([[1, 2, 3]], dtype=np.uint8)}, do_compression=True)
    return buffer.getvalue()


def flowers(path: Path) -> object:
    from clbench.datamodules.catalogue.catalogue import CATALOG

    return read_flowers(CATALOG["Flowers"], path.parent)


def settings_of(change: tuple[str, Any], folder: Path) -> object:
    return config.resolve(overrides={change[0]: change[1]})


IDX = bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3])
CIFAR = python2_pickle({b"data": np.zeros((2, 3072), dtype=np.uint8), b"fine_labels": [0, 1]})
BITS = encode_row(0, {"a": [True, False, True]}) + encode_row(1, {"a": [True] * 9})
MATRIX = b"task,a,b\nimages,10,20\nzero-shot,10,20\na,50,20.5\nb,40,60\n"
SETTINGS = """train.betas train.lr train.steps train.epochs train.batch_size train.warmup
train.momentum train.weight_decay train.clip_grad_norm seed devices workers
checkpoint_every.seconds method.rank method.alpha method.dropout evaluation.batch_size"""

FORMATS = {
    "metadata": Format("metadata of safetensors files", changed(METADATA), load_described),
    "weights": Format(
        "weights: safetensors and torch.save",
        st.one_of(
            st.tuples(st.just("w.pt"), damaged(saved(state()))),
            st.tuples(st.just("w.safetensors"), damaged(save(state()))),
        ),
        lambda case, folder: from_file(case[0], read_checkpoint)(case[1], folder),
    ),
    "pickles": Format("CIFAR-100's pickles", damaged(CIFAR), from_file("train", read_pickle)),
    "tar": Format(
        "tar archives: plain, gzip, bzip2, xz",
        st.one_of(damaged(*tars()), named_tars()),
        from_file("a.tar.gz", lambda path: unpack(path, path.parent / "out")),
    ),
    "zip": Format(
        "zip archives: stored, deflate, bzip2, LZMA",
        damaged(*zips()),
        from_file("a.zip", lambda path: unpack(path, path.parent / "out")),
    ),
    "images": Format(
        "images: JPEG, PNG, BMP, WebP, TIFF", damaged(*images()), from_file("a.png", decode)
    ),
    "results": Format(
        "result files with the right hash",
        changed(whole_result()).map(resealed),
        from_file("result.json", show_result),
    ),
    "bits": Format(
        "records of single images",
        damaged(BITS),
        from_file(f"a{SUFFIX}", lambda path: read_rows(path.with_suffix(".json"))),
    ),
    "idx": Format(
        "MNIST's arrays",
        st.one_of(
            st.tuples(st.just("x"), damaged(IDX)),
            st.tuples(st.just("x.gz"), damaged(gzip.compress(IDX))),
        ),
        lambda case, folder: from_file(case[0], lambda _: read_idx(folder / "x"))(case[1], folder),
    ),
    "matlab": Format("MATLAB annotations", damaged(mat()), from_file("imagelabels.mat", flowers)),
    "matrices": Format("accuracy matrices", damaged(MATRIX), from_file("m.csv", read_matrix_csv)),
    "settings": Format(
        "settings on the command line",
        st.tuples(st.one_of(st.sampled_from(SETTINGS.split()), KEYS), VALUES),
        settings_of,
    ),
}
