"""Signatures of manifests, made and checked by OpenSSH's ``ssh-keygen`` with keys people have.

A signature covers the manifest and so every file that it names. It says that the owner of a key
vouches for the run, not that the run was made as it claims.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Final

from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic
from clbench.core.results.manifest import FILE_NAME as MANIFEST
from clbench.core.results.soundness import Finding

FILE_NAME: Final = f"{MANIFEST}.sig"
NAMESPACE: Final = "clbench"
"""Keeps a signature made for something else from passing as one of a run."""


def sign(folder: Path, key: Path) -> None:
    """Sign the manifest of a run.

    Args:
        folder: the run directory.
        key: an SSH private key; or a public one whose private key is in the agent.

    Raises:
        ClbenchError: there is no manifest, or ``ssh-keygen`` cannot sign.
    """
    manifest = _manifest(folder)
    if not key.is_file():
        raise ClbenchError(f"there is no key {key}: make one with ssh-keygen -t ed25519")
    done = _ssh_keygen("sign", "-f", str(key), text=manifest)
    if done.returncode:
        raise ClbenchError(f"ssh-keygen cannot sign with {key}: {_reason(done)}")
    write_atomic(folder / FILE_NAME, done.stdout)


def check_signature(folder: Path, key: Path) -> Finding:
    """Whether the manifest of a run was signed with the private half of a public key.

    Raises:
        ClbenchError: there is no manifest, the key cannot be read, or there is no ``ssh-keygen``.
    """
    manifest, signature = _manifest(folder), folder / FILE_NAME
    try:
        public = key.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClbenchError(f"cannot read the public key {key}") from error
    if "PRIVATE KEY" in public or len(public.splitlines()) != 1:
        raise ClbenchError(f"{key} holds no public key: name the file that ends in .pub")
    if not signature.is_file():
        return Finding("signature", "missing", False)
    with tempfile.NamedTemporaryFile("w", suffix=".allowed") as allowed:
        allowed.write(f"* {public}\n")
        allowed.flush()
        who = ("-f", allowed.name, "-I", NAMESPACE, "-s", str(signature))
        done = _ssh_keygen("verify", *who, text=manifest)
    if done.returncode:
        return Finding("signature", f"not one of {key} over this manifest", False)
    return Finding("signature", f"made with the private half of {key}")


def _manifest(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError:
        raise ClbenchError(
            f"{folder} has no {MANIFEST}: only directories of finished runs can be signed"
        ) from None


def _ssh_keygen(action: str, *arguments: str, text: bytes) -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", "-Y", action, "-n", NAMESPACE, *arguments]
    try:
        return subprocess.run(command, input=text, capture_output=True, check=False)
    except OSError as error:
        raise ClbenchError(
            "signatures need ssh-keygen, which is not installed: install OpenSSH (8.1 or newer)"
        ) from error


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode(errors="replace").split("\n")
    return next(
        (line.strip() for line in lines if line and "Signing" not in line), "no reason given"
    )
