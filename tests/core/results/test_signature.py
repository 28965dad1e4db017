"""A signature of a run's manifest holds for that manifest and that key only."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.results.manifest import write_manifest
from clbench.core.results.signature import check_signature, sign

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs OpenSSH")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two private keys; the public ones lie beside them."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "yours"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name} key", "-f"]
        subprocess.run([*command, str(folder / name)], check=True)
    return folder / "mine", folder / "yours"


def public(key: Path) -> Path:
    return key.with_suffix(".pub")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "log.txt").write_text("a run")
    write_manifest(tmp_path)
    return tmp_path


def test_a_signature_is_one_of_its_key(run: Path, keys: tuple[Path, Path]) -> None:
    mine, yours = keys
    sign(run, mine)
    assert check_signature(run, public(mine)).sound
    other = check_signature(run, public(yours))
    assert not other.sound
    assert "not one of" in other.text
    sign(run, yours)
    assert check_signature(run, public(yours)).sound
    assert not check_signature(run, public(mine)).sound


def test_an_edit_that_the_manifest_was_adapted_to_shows(run: Path, keys: tuple[Path, Path]) -> None:
    sign(run, keys[0])
    (run / "log.txt").write_text("another run")
    write_manifest(run)
    assert not check_signature(run, public(keys[0])).sound


def test_a_signature_for_something_else_does_not_count(run: Path, keys: tuple[Path, Path]) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(keys[0])]
    manifest = (run / "manifest.json").read_bytes()
    done = subprocess.run(command, input=manifest, capture_output=True, check=True)
    (run / "manifest.json.sig").write_bytes(done.stdout)
    assert not check_signature(run, public(keys[0])).sound


def test_no_signature_is_not_enough(run: Path, keys: tuple[Path, Path]) -> None:
    finding = check_signature(run, public(keys[0]))
    assert (finding.text, finding.sound) == ("missing", False)


@pytest.mark.parametrize("content", [b"", b"no signature", b"\xff"])
def test_half_a_signature_does_not_count(
    content: bytes, run: Path, keys: tuple[Path, Path]
) -> None:
    (run / "manifest.json.sig").write_bytes(content)
    assert not check_signature(run, public(keys[0])).sound


def test_mistakes_are_one_clear_error(
    run: Path, keys: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys[0]
    with pytest.raises(ClbenchError, match=r"there is no key .*: make one with ssh-keygen"):
        sign(run, tmp_path / "missing")
    with pytest.raises(ClbenchError, match="cannot read the public key"):
        check_signature(run, tmp_path / "missing")
    with pytest.raises(ClbenchError, match=r"name the file that ends in \.pub"):
        check_signature(run, key)
    (tmp_path / "both.pub").write_text("".join(public(one).read_text() for one in keys))
    with pytest.raises(ClbenchError, match=r"both\.pub holds no public key"):
        check_signature(run, tmp_path / "both.pub")
    (tmp_path / "nonsense").write_text("nonsense")
    with pytest.raises(ClbenchError, match=r"ssh-keygen cannot sign with .*nonsense: \S"):
        sign(run, tmp_path / "nonsense")
    assert not (run / "manifest.json.sig").exists()
    for attempt in (lambda: sign(tmp_path / "empty", key), lambda: check_signature(run / "x", key)):
        with pytest.raises(ClbenchError, match="only directories of finished runs can be signed"):
            attempt()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClbenchError, match="ssh-keygen, which is not installed"):
        sign(run, key)
