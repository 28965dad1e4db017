"""Whether a method is still the one that a result came from: a hash of its source."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from clbench.clip.weights.packages import find_module
from clbench.core.method import Method

DIGITS = 16

_UNSTABLE = frozenset({"__firstlineno__", "__static_attributes__"})
"""What Python notes about a class that says nothing about what it does."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))


@functools.cache
def source_hash(cls: type[Method]) -> str:
    """Hash of the source of a method and of the outside modules that it imports.

    That is its own module; for methods from elsewhere also the modules of their package, and those
    that lie beside installed packages, as far as import statements lead from its module. clbench's
    shared parts, whose version is recorded, do not count. A class without a file, from a notebook
    or a prompt, is hashed by its own source or, where that is gone, by its compiled functions.

    It is taken once per class, at the start of a run: files may be edited while it trains.
    """
    digest = hashlib.sha256()
    for name, content in sorted(_contents(cls)):
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:DIGITS]


def _contents(cls: type[Method]) -> Iterator[tuple[str, bytes]]:
    own = cls.__mro__[: cls.__mro__.index(Method)]
    files: dict[str, Path] = {}
    for base in own:
        path = _file(sys.modules.get(base.__module__))
        if path is None or not _stands_in_a_file(base):
            yield f"{base.__module__}.{base.__qualname__}", _class_source(base)
        else:
            _follow(base.__module__, path, files)
    for name, path in files.items():
        yield _lasting_name(name), path.read_bytes()


def _follow(name: str, path: Path, files: dict[str, Path]) -> None:
    """Add a module and the outside modules that it imports, by name, wherever it does."""
    if name in files:
        return
    files[name] = path
    package = name.partition(".")[0]
    if package == "clbench":
        return
    for imported in _imported(name, path):
        top = imported.partition(".")[0]
        if top == "clbench" or (top != package and _is_installed(_found(top))):
            continue
        file = _found(imported)
        if file is not None and (top == package or not _is_installed(file)):
            _follow(imported, file, files)


def _imported(name: str, path: Path) -> Iterator[str]:
    """Names that the import statements of a module may load, among them names of no modules."""
    parent = name if path.stem == "__init__" else name.rpartition(".")[0]
    try:
        nodes = [*ast.walk(ast.parse(path.read_bytes()))]
    except SyntaxError:  # it was edited since it was loaded
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parent.split(".")[: parent.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _found(name: str) -> Path | None:
    """The file of a module, loaded or not."""
    if name in sys.modules:
        return _file(sys.modules[name])
    spec = find_module(name)
    path = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _file(module: ModuleType | None) -> Path | None:
    name = getattr(module, "__file__", None)
    path = Path(name) if name else None
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _stands_in_a_file(cls: type[Any]) -> bool:
    """Whether the code of a class was compiled from a file, and not from a text or a cell."""
    functions = [inspect.unwrap(value) for value in vars(cls).values() if callable(value)]
    files = [f.__code__.co_filename for f in functions if hasattr(f, "__code__")]
    return not files or any(Path(name).is_file() for name in files)


def _is_installed(file: Path | None) -> bool:
    """Whether a file belongs to Python or to an installed package."""
    if file is None:
        return False
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
        return _stable({k: v for k, v in vars(cls).items() if k not in _UNSTABLE}).encode()


def _stable(value: Any) -> str:
    """What a value is, in the same words in every process; empty for what has none."""
    if isinstance(value, property):
        return _stable((value.fget, value.fset))
    value = inspect.unwrap(value) if callable(value) or hasattr(value, "__wrapped__") else value
    if hasattr(value, "__code__"):
        return _stable((value.__code__, value.__defaults__, value.__kwdefaults__))
    if isinstance(value, CodeType):  # without where its lines stood
        return _stable((value.co_code, value.co_names, value.co_consts))
    if isinstance(value, Mapping):
        return _stable([*value.items()])
    if isinstance(value, set | frozenset):
        return _stable(sorted(map(_stable, value)))
    if isinstance(value, list | tuple):
        return f"({','.join(map(_stable, value))})"
    return repr(value) if isinstance(value, _PLAIN) else ""
