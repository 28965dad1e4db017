"""Small files that ask for much: what a reader takes is bounded by the size of the file."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from clbench.clip.weights.files import read_checkpoint
from clbench.core.errors import ClbenchError
from clbench.core.foreign import sizes
from clbench.core.results.correctness import FORMAT, decode_rows
from clbench.datamodules.fetching.unpack import unpack
from clbench.datamodules.pixels.samples import Samples
from clbench.datamodules.readers.arrays import read_idx
from clbench.datamodules.readers.cifar_pickle import read_pickle
from tests.fuzz.memory import TOLD, peak, reset_peak

ALLOWED = 200 * 2**20
"""Bytes that refusing a small file may take."""


@contextmanager
def little_memory() -> Iterator[None]:
    """Assert that the block takes little memory, where the system tells."""
    if not TOLD:
        pytest.skip("the system does not tell the peak of memory")
    reset_peak()
    before = peak()
    yield
    assert peak() - before < ALLOWED


def refused(read: Callable[[Path], object], path: Path, message: str) -> None:
    with little_memory(), pytest.raises(ClbenchError, match=message) as error:
        read(path)
    assert path.name in str(error.value)
    assert "\n" not in str(error.value)


TABLE = b"\x80\x02}r" + struct.pack("<I", 60_000_000) + b"."
"""A pickle of an empty mapping that is kept as entry 60 million: readers make a table for them."""


def test_a_pickle_with_a_huge_table(tmp_path: Path) -> None:
    path = tmp_path / "train"
    path.write_bytes(TABLE)
    refused(read_pickle, path, "a table of 60000000 entries")


def archive_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"x/{name.replace('__', '.')}", content)
    return path


CALLS = {
    "bytes": b"\x80\x02c__builtin__\nbytearray\nJ" + struct.pack("<i", 10**9) + b"\x85R.",
    "tensor": b"\x80\x02ctorch\nFloatTensor\nJ" + struct.pack("<i", 10**9) + b"\x85R.",
    "storage": b"\x80\x02ctorch.storage\nUntypedStorage\nJ" + struct.pack("<i", 10**9) + b"\x85R.",
}


@pytest.mark.parametrize("name", CALLS)
def test_weights_that_call_something_large(name: str, tmp_path: Path) -> None:
    path = archive_of(tmp_path / "w.pt", data__pkl=CALLS[name], version=b"3", byteorder=b"little")
    refused(read_checkpoint, path, "holds Python objects besides tensors")


@pytest.mark.parametrize("name", ["data__pkl", "DATA__PKL"])
def test_a_huge_table_in_weights(name: str, tmp_path: Path) -> None:
    for other in ({}, {"constants__pkl": b"\x80\x02)."}):
        path = archive_of(tmp_path / "w.pt", **{name: TABLE}, **other, version=b"3")
        with little_memory(), pytest.raises(ClbenchError, match=r"w\.pt"):
            read_checkpoint(path)


def tensor_program(size: int, stride: int) -> bytes:
    """A pickled TorchScript module with one tensor over one number."""
    return (
        b"\x80\x02c__torch__\nNet\n)\x81}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01"
        b"tQK\x00J" + struct.pack("<i", size) + b"\x85K" + bytes([stride]) + b"\x85\x89)tRsb."
    )


def test_a_tensor_of_one_number_repeated(tmp_path: Path) -> None:
    """A stride of zero makes any size valid; nothing of that size is made."""
    content = {"constants__pkl": b"\x80\x02).", "data/0": np.float32(7).tobytes()}
    path = archive_of(tmp_path / "w.pt", data__pkl=tensor_program(500_000_000, 0), **content)
    with little_memory():
        state = read_checkpoint(path).state
    assert state["w"].shape == (500_000_000,)
    assert state["w"][-1] == 7
    archive_of(path, data__pkl=tensor_program(500_000_000, 1), **content)
    refused(read_checkpoint, path, "truncated or damaged")


def test_weights_that_are_compressed_out_of_proportion(tmp_path: Path) -> None:
    path, block = tmp_path / "w.pt", bytes(2**20)
    torch.save({"weight": torch.zeros(3)}, path)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("w/data/1", "w") as member,
    ):
        for _ in range(250):
            member.write(block)
    refused(read_checkpoint, path, "unpacks to more than 20 times its size.*torch.save")


@pytest.fixture
def no_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files grow by their size alone, so that small bombs will do."""
    monkeypatch.setattr(sizes, "SLACK", 100_000)


def tar_with(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.usefixtures("no_slack")
def test_an_archive_of_empty_folders(tmp_path: Path) -> None:
    path = tar_with(tmp_path / "a.tgz", *(folder(f"{i}") for i in range(3000)))
    refused(lambda p: unpack(p, tmp_path / "out"), path, "more than 20 times its size")
    assert len(list((tmp_path / "out").iterdir())) < 1000


@pytest.mark.usefixtures("no_slack")
def test_an_archive_with_a_huge_header(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * 10**7}
    path = tar_with(tmp_path / "a.tgz", info)
    refused(lambda p: unpack(p, tmp_path / "out"), path, "more than 20 times its size")


@pytest.mark.usefixtures("no_slack")
def test_digits_that_are_compressed_out_of_proportion(tmp_path: Path) -> None:
    shape = struct.pack(">HBBIII", 0, 8, 3, 10**4, 28, 28)
    (tmp_path / "train.gz").write_bytes(gzip.compress(shape + bytes(28 * 28 * 10**4), 9))
    refused(lambda _: read_idx(tmp_path / "train"), tmp_path / "train.gz", "more than 20 times")


def png(side: int) -> bytes:
    """A square picture that states its size and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("side", "message"),
    [(5_000, "would have 5000 x 5000 pixels.*scale it down"), (20_000, "cannot read the image")],
)
def test_pictures_out_of_proportion(side: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(side))
    samples = Samples(np.zeros(1, dtype=np.int64), tmp_path, (path.name,))
    refused(lambda _: samples.image(0), path, message)


def test_a_record_that_states_more_answers_than_it_has() -> None:
    header = {"format": FORMAT, "learned": 0, "tasks": [["a", 8 * 10**9, 0]]}
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    content = json.dumps({**header, "sha256": empty}).encode() + b"\n"
    with little_memory(), pytest.raises(ValueError, match="the bits do not have the hash"):
        decode_rows(content)


def test_pickles_of_later_protocols_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "train"
    path.write_bytes(pickle.dumps({b"data": 1}, protocol=5))
    refused(read_pickle, path, "protocol 5 is not allowed")
