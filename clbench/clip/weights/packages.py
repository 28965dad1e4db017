"""Where installed packages and their files lie, found without importing anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path, PurePosixPath

from clbench.core.errors import ClbenchError

IN_PACKAGE = re.compile(r"(?P<package>[A-Za-z_]\w+(?:\.\w+)*):(?P<file>[^:]+)")
"""``package:file``; a package has two letters at least, a Windows drive one."""


def find_module(name: str) -> ModuleSpec | None:
    """Where a module lies; None if there is none.

    `importlib.util.find_spec` imports the packages around a module. Here they are only looked up.
    """
    spec: ModuleSpec | None = None
    parts = name.split(".")
    if not all(parts):
        return None
    for end in range(1, len(parts) + 1):
        places = None if spec is None else spec.submodule_search_locations
        if end > 1 and places is None:
            return None
        spec = _find(".".join(parts[:end]), None if places is None else [*places])
        if spec is None:
            return None
    return spec


def packaged_file(weights: str) -> Path | None:
    """The file that ``package:file`` names, existing or not; None for other texts.

    Raises:
        ClbenchError: the package is not installed, or the file lies outside of it.
    """
    match = IN_PACKAGE.fullmatch(weights)
    if match is None:
        return None
    spec = find_module(match["package"])
    places = [] if spec is None else [*(spec.submodule_search_locations or ())]
    if not places:
        raise ClbenchError(
            f"the package {match['package']!r} in backbone.weights={weights} is not installed"
        )
    file = PurePosixPath(match["file"])
    if file.is_absolute() or ".." in file.parts:
        raise ClbenchError(f"backbone.weights={weights} leads out of its package: name the file")
    return Path(places[0], file)


def _find(name: str, places: list[str] | None) -> ModuleSpec | None:
    if (module := sys.modules.get(name)) is not None:
        return getattr(module, "__spec__", None)
    for finder in sys.meta_path:
        look = getattr(finder, "find_spec", None)
        try:
            found: ModuleSpec | None = None if look is None else look(name, places)
        except KeyError:  # a folder without __init__.py asks for the module around it
            found = _plain_folder(name, places or ())
        if found is not None:
            return found
    return None


def _plain_folder(name: str, places: Sequence[str]) -> ModuleSpec:
    spec = ModuleSpec(name, None, is_package=True)
    inside = [Path(place, name.rpartition(".")[2]) for place in places]
    spec.submodule_search_locations = [str(folder) for folder in inside if folder.is_dir()]
    return spec
