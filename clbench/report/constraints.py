"""The versions a run was made with, as a constraints file for pip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult

PYTORCH_INDEX = "https://download.pytorch.org/whl/"
_BUILD = re.compile(r"cpu|xpu|cu\d+|rocm[\d.]+")
"""Local versions of PyTorch that have an index of their own."""


def constraints(result: RunResult) -> str:
    """A constraints file: comments on the machine, then ``name==version`` for every package.

    Builds of PyTorch that are not on PyPI, such as ``2.9.0+cpu``, bring the address of their index.

    Raises:
        ClbenchError: the result does not record its packages, or its entries are not valid.
    """
    packages = result.provenance.get("packages")
    if not isinstance(packages, dict) or not packages:
        raise ClbenchError("this result does not record the packages it was made with")
    pins = [_pin(name, version) for name, version in sorted(packages.items())]
    indices = dict.fromkeys(
        f"--extra-index-url {PYTORCH_INDEX}{pin.local}"
        for _, pin in pins
        if pin.local and _BUILD.fullmatch(pin.local)
    )
    lines = [*_comments(result), *indices, *(f"{name}=={version}" for name, version in pins)]
    return "".join(f"{line}\n" for line in lines)


def _pin(name: Any, version: Any) -> tuple[str, Version]:
    """Validated, because pip would obey an option that stands in place of a name."""
    try:
        exact = Version(version)
        requirement = Requirement(f"{name}=={exact}")
    except (InvalidRequirement, InvalidVersion, TypeError) as error:
        raise ClbenchError(
            f"the result names the package {name!r} in version {version!r}, which is not valid"
        ) from error
    if requirement.name != name:
        raise ClbenchError(f"the result names the package {name!r}, which is not a valid name")
    return requirement.name, exact


def _comments(result: RunResult) -> Iterator[str]:
    found = result.provenance
    yield _comment(f"{result.method.name} on {result.benchmark.name}, seed {result.seed}")
    yield _comment(f"Python {found.get('python')}, {found.get('platform')}")
    device, cuda = found.get("device"), found.get("cuda")
    toolkit = cuda.get("toolkit") if isinstance(cuda, dict) else None
    yield _comment(f"{device}, CUDA {toolkit}" if device != "cpu" else found.get("processor"))
    git = found.get("git")
    if isinstance(git, dict):
        changed = ", with changes that were not committed" if git.get("dirty") else ""
        yield _comment(f"clbench from a checkout of commit {git.get('commit')}{changed}")
    if found.get("resumed"):
        yield _comment("resumed: the versions are those of the last start")


def _comment(text: Any) -> str:
    """One line, whatever the result holds."""
    return "# " + "".join(c if c.isprintable() else " " for c in str(text))
