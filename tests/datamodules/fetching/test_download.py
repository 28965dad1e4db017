"""Fetching and unpacking: what breaks off goes on, what is wrong is named, nothing leaks out."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.foreign import sizes
from clbench.datamodules.fetching.download import ATTEMPTS, Stream, _StayOnTLS, fetch, open_url
from clbench.datamodules.fetching.unpack import unpack
from tests.datamodules.archives import BrokenBody, Server, member, remote, special, tar_of

CONTENT = bytes(range(256)) * 40
URL = "https://host/a.tgz"


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_a_file_is_fetched_verified_and_not_fetched_again(tmp_path: Path) -> None:
    server, seen = Server({URL: CONTENT}), []
    file = remote("a.tgz", CONTENT)
    path = fetch(file, tmp_path / "new", opener=server, progress=lambda *x: seen.append(x))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("a.tgz", len(CONTENT), len(CONTENT))
    assert fetch(file, tmp_path / "new", opener=server) == path
    assert server.asked == [(URL, 0)]
    assert names(tmp_path) == ["new", "new/a.tgz"]


def test_a_download_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    server = Server({URL: CONTENT})
    server.breaks = [1000, 500]
    assert fetch(remote("a.tgz", CONTENT), tmp_path, opener=server).read_bytes() == CONTENT
    assert server.asked == [(URL, 0), (URL, 1000), (URL, 1500)]


def test_a_reset_connection_keeps_what_has_arrived(tmp_path: Path) -> None:
    server = Server({URL: CONTENT})

    def resetting(url: str, start: int) -> Stream:
        stream = server(url, start)
        return stream if start else replace(stream, body=BrokenBody(CONTENT[:700]))

    assert fetch(remote("a.tgz", CONTENT), tmp_path, opener=resetting).read_bytes() == CONTENT
    assert server.asked == [(URL, 0), (URL, 700)]


def test_a_truncated_download_is_named_kept_and_gone_on_with_by_the_next_call(
    tmp_path: Path,
) -> None:
    server = Server({URL: CONTENT})
    server.breaks = [100] * ATTEMPTS
    with pytest.raises(ClbenchError, match="broke off after 300 of 10240 bytes") as error:
        fetch(remote("a.tgz", CONTENT), tmp_path, opener=server)
    assert "a.tgz.part is kept; run the same command again" in str(error.value)
    assert names(tmp_path) == ["a.tgz.part"]
    assert fetch(remote("a.tgz", CONTENT), tmp_path, opener=server).read_bytes() == CONTENT
    assert server.asked[-1] == (URL, 300)
    assert names(tmp_path) == ["a.tgz"]


def test_a_server_that_cannot_resume_starts_from_the_first_byte(tmp_path: Path) -> None:
    (tmp_path / "a.tgz.part").write_bytes(b"y" * 20000)
    server = Server({URL: CONTENT}, resumes=False)
    assert fetch(remote("a.tgz", CONTENT), tmp_path, opener=server).read_bytes() == CONTENT


def test_a_part_of_another_version_is_thrown_away_once(tmp_path: Path) -> None:
    (tmp_path / "a.tgz.part").write_bytes(b"y" * 50)
    server = Server({URL: CONTENT})
    assert fetch(remote("a.tgz", CONTENT), tmp_path, opener=server).read_bytes() == CONTENT
    assert server.asked == [(URL, 50), (URL, 0)]


def test_a_wrong_checksum_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    server = Server({URL: b"something else"})
    with pytest.raises(ClbenchError, match="gave a file whose md5 sum differs; it was removed"):
        fetch(remote("a.tgz", CONTENT), tmp_path, opener=server)
    assert names(tmp_path) == []
    assert len(server.asked) == 1


def test_without_network_one_line_names_the_address_and_the_way_by_hand(tmp_path: Path) -> None:
    with pytest.raises(ClbenchError) as error:
        fetch(remote("a.tgz", CONTENT), tmp_path, opener=Server())
    assert str(error.value) == (
        f"cannot fetch {URL}: Name or service not known; "
        f"run the same command again, or put a.tgz into {tmp_path} by hand"
    )
    assert names(tmp_path) == []


def test_a_file_put_there_by_hand_is_taken_only_with_the_right_checksum(tmp_path: Path) -> None:
    file = replace(remote("a.tgz", CONTENT), url=None)
    (tmp_path / "a.tgz").write_bytes(CONTENT[:-1])
    with pytest.raises(ClbenchError, match=r"a\.tgz is truncated or damaged.*a\.tgz\.damaged"):
        fetch(file, tmp_path)
    assert names(tmp_path) == ["a.tgz.damaged"]
    (tmp_path / "a.tgz").write_bytes(CONTENT)
    assert fetch(file, tmp_path).read_bytes() == CONTENT


def test_tls_is_tried_first_and_plain_http_only_with_a_checksum(tmp_path: Path) -> None:
    plain = replace(remote("a.tgz", CONTENT), url="http://host/a.tgz")
    server = Server({"http://host/a.tgz": CONTENT})
    assert fetch(plain, tmp_path, opener=server).read_bytes() == CONTENT
    assert [url for url, _ in server.asked] == [URL, "http://host/a.tgz"]
    server.asked.clear()
    with pytest.raises(ClbenchError, match="cannot fetch https://host"):
        fetch(replace(plain, checksum=None), tmp_path / "other", opener=server)
    assert [url for url, _ in server.asked] == [URL]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClbenchError, match=r"cannot write below .*/file/x: Not a directory"):
        fetch(remote("a.tgz", CONTENT), tmp_path / "file" / "x", opener=Server({URL: CONTENT}))


def test_redirections_may_not_leave_tls() -> None:
    request = urllib.request.Request("https://host/a")
    handler = _StayOnTLS()
    with pytest.raises(urllib.error.URLError, match="without TLS: refused"):
        handler.redirect_request(request, io.BytesIO(), 302, "", Message(), "http://host/a")
    followed = handler.redirect_request(request, io.BytesIO(), 302, "", Message(), "https://b/a")
    assert followed is not None
    assert followed.full_url == "https://b/a"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, in parts if asked."""

    def do_GET(self) -> None:
        if self.path != "/a.tgz":
            self.send_error(404)
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-10239/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("start", "begins"), [(0, 0), (10000, 10000), (10240, 0), (99999, 0)])
def test_http_ranges(address: str, start: int, begins: int) -> None:
    stream = open_url(f"{address}/a.tgz", start)
    with stream.body as body:
        assert (stream.start, stream.total) == (begins, len(CONTENT))
        assert body.read() == CONTENT[begins:]


def test_a_missing_page_is_one_line(address: str, tmp_path: Path) -> None:
    file = replace(remote("b", CONTENT), url=f"{address}/b")
    with pytest.raises(ClbenchError, match=r"cannot fetch .*/b: the server answers 404 Not Found"):
        fetch(file, tmp_path, opener=lambda url, start: open_url(f"{address}/b", start))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_tar_and_zip_are_unpacked(tmp_path: Path) -> None:
    tar = written(tmp_path / "a.tar.gz", tar_of(member("d/a", b"one"), member("d/e/b", b"two")))
    unpack(tar, tmp_path / "tar")
    assert names(tmp_path / "tar") == ["d", "d/a", "d/e", "d/e/b"]
    assert (tmp_path / "tar" / "d" / "e" / "b").read_bytes() == b"two"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("d/", "")
        packed.writestr("d/a", "one")
    unpack(tmp_path / "a.zip", tmp_path / "zip")
    assert (tmp_path / "zip" / "d" / "a").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "d/../../evil", "..\\evil", "C:\\evil"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_no_member_leaves_the_folder(name: str, kind: str, tmp_path: Path) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "tar":
        archive.write_bytes(tar_of(member(name)))
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(name, "x")
    with pytest.raises(ClbenchError, match="evil', which would leave its folder: refused"):
        unpack(archive, tmp_path / "in" / "side")
    assert not list(tmp_path.rglob("*evil"))


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, "../../etc"),
        (tarfile.LNKTYPE, "../secret"),
        (tarfile.LNKTYPE, "/etc/passwd"),
    ],
)
def test_links_out_of_the_folder_are_refused(kind: bytes, target: str, tmp_path: Path) -> None:
    archive = written(tmp_path / "a.tgz", tar_of(special("d/link", kind, target)))
    with pytest.raises(ClbenchError, match="would leave its folder: refused"):
        unpack(archive, tmp_path / "out")


def test_links_inside_the_folder_are_not_made(tmp_path: Path) -> None:
    links = [special("d/link", tarfile.SYMTYPE, "../a"), special("d", tarfile.SYMTYPE, "a")]
    archive = written(tmp_path / "a.tgz", tar_of(member("a"), *links, member("d/b")))
    unpack(archive, tmp_path / "out")
    assert names(tmp_path / "out") == ["a", "d", "d/b"]
    assert not (tmp_path / "out" / "d").is_symlink()


def test_links_in_zip_files_are_not_made(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(info, "/etc/passwd")
        packed.writestr("a", "x")
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert names(tmp_path / "out") == ["a"]


def test_devices_are_refused(tmp_path: Path) -> None:
    archive = written(tmp_path / "a.tgz", tar_of(special("fifo", tarfile.FIFOTYPE)))
    with pytest.raises(ClbenchError, match="'fifo', a device: refused"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_that_grow_out_of_proportion_are_refused_before_they_are_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "SLACK", 10_000)
    archive, zeros = tmp_path / f"a.{kind}", bytes(10**6)
    if kind == "tar":
        archive.write_bytes(tar_of(member("small"), member("big", zeros)))
    else:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("small", "x")
            packed.writestr("big", zeros)
    with pytest.raises(ClbenchError, match="unpacks to more than 20 times its size: refused"):
        unpack(archive, tmp_path / "out")
    assert "big" not in names(tmp_path / "out")


@pytest.mark.parametrize("kind", ["tgz", "tar", "zip"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_archives_are_named(kind: str, keep: float, tmp_path: Path) -> None:
    noise = bytes((i * i * 7919) % 251 for i in range(50000))
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("a", noise)
    else:
        with tarfile.open(archive, "w:gz" if kind == "tgz" else "w") as tar:
            tar.addfile(*member("a", noise))
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * min(len(content), 50000))])
    with pytest.raises(ClbenchError, match=rf"a\.{kind} is truncated or damaged"):
        unpack(archive, tmp_path / "out")


def test_flipped_bits_in_a_zip_file_are_noticed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("a", b"content" * 100)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[100] ^= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ClbenchError, match=r"a\.zip is truncated or damaged: Bad CRC"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
