"""Whether a method is still the one that a result came from: a hash of its source."""

from __future__ import annotations

import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from clbench.core.method import Method

DIGITS = 16


def source_hash(cls: type[Method]) -> str:
    """Hash of the source of a method and of the outside modules that it comes from.

    That is its own module; for methods from elsewhere also the modules of their package, and those
    that lie beside installed packages, as far as they are reached from its module. clbench's shared
    parts, whose version is recorded, do not count. A class without a file, from a notebook or a
    prompt, is hashed by its own source or, where that is gone, by its compiled functions.
    """
    digest = hashlib.sha256()
    for name, content in sorted(_contents(cls)):
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:DIGITS]


def _contents(cls: type[Method]) -> Iterator[tuple[str, bytes]]:
    own = cls.__mro__[: cls.__mro__.index(Method)]
    seen: dict[str, ModuleType] = {}
    for base in own:
        module = sys.modules.get(base.__module__)
        path = _file(module)
        if module is None or path is None:
            yield f"{base.__module__}.{base.__qualname__}", _class_source(base)
        else:
            seen.setdefault(base.__module__, module)
            _follow(module, path, seen)
    for name, module in seen.items():
        path = _file(module)
        if path is not None:
            yield _lasting_name(name), path.read_bytes()


def _follow(module: ModuleType, path: Path, seen: dict[str, ModuleType]) -> None:
    """Add the outside modules that a module's names come from."""
    package = module.__name__.partition(".")[0]
    if package == "clbench":
        return
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        found = sys.modules.get(name) if isinstance(name, str) else None
        file = _file(found)
        if found is None or file is None or found.__name__ in seen:
            continue
        top = found.__name__.partition(".")[0]
        if top == package or (top != "clbench" and not _is_installed(file)):
            seen[found.__name__] = found
            _follow(found, file, seen)


def _file(module: ModuleType | None) -> Path | None:
    name = getattr(module, "__file__", None)
    path = Path(name) if name else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _is_installed(file: Path) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    places = [*site.getsitepackages(), site.getusersitepackages()]
    places += [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return any(file.resolve().is_relative_to(Path(place).resolve()) for place in places if place)


def _lasting_name(name: str) -> str:
    """A module's name, without the part that is another for every file it may be loaded from."""
    return name.partition("@")[0]


def _class_source(cls: type[Any]) -> bytes:
    try:
        return inspect.getsource(cls).encode()
    except (OSError, TypeError):
        functions = sorted(vars(cls).items())
        return b"".join(
            name.encode() + _code(value.__code__)
            for name, value in functions
            if hasattr(value, "__code__")
        )


def _code(code: CodeType) -> bytes:
    """What a function does, without where its lines stood."""
    constants = [_code(c) if isinstance(c, CodeType) else repr(c).encode() for c in code.co_consts]
    return b"\0".join([code.co_code, repr(code.co_names).encode(), *constants])
