"""Where methods, benchmarks, probes and recipes are found by name."""

from __future__ import annotations

import ast
import copy
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import yaml

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.foreign.yaml_text import load_yaml

if TYPE_CHECKING:
    from clbench.core.data import SequenceData
    from clbench.core.method import Method
    from clbench.core.probe import Probe

Kind = Literal["method", "probe"]
Builder = Callable[..., "SequenceData"]

FOLDER = "folder:"
"""Prefix of benchmark names that stand for a directory of the user's."""

#: Arguments every benchmark builder receives from the engine; all others are its options.
BUILDER_CONTEXT = frozenset({"image_size", "data_root", "cache_root", "workers", "quick"})

TUNING: dict[str, Any] = {"tested_on": "validation", "first_tasks": 4}
"""Settings with which `clbench tune` searches on a benchmark that names no others."""


@dataclass(frozen=True)
class BenchmarkRecipe:
    """A benchmark as its recipe declares it.

    Attributes:
        name: as used on the command line.
        title: one line on what it is.
        builder: ``module:function`` that returns the task sequence.
        family: benchmark whose sections of method recipes apply too (itself by default).
        options: arguments of the builder.
        backbone: default backbone.
        train: default training settings.
        results: published or measured reference numbers.
        resources: what a launcher gives a run: ``cpus``, ``gpus``, ``memory``, ``time``.
        tuning: settings by dotted key with which `clbench tune` searches: other images than those
            of the tests, another order, few tasks.
    """

    name: str
    title: str
    builder: str
    family: str
    options: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=lambda: dict(TUNING))

    def load_builder(self) -> Builder:
        """Import the builder."""
        builder: Builder = _import_object(self.builder, "benchmark builder")
        return builder

    def option_schema(self) -> dict[str, inspect.Parameter]:
        """The builder's options: name to `inspect.Parameter` with annotation and default."""
        parameters = inspect.signature(self.load_builder(), eval_str=True).parameters
        return {
            n: p for n, p in parameters.items() if n not in BUILDER_CONTEXT | {"name", "return"}
        }


@dataclass(frozen=True)
class MethodRecipe:
    """Settings of a method that differ from the defaults, in general and per benchmark.

    Attributes:
        name: the method's name.
        params: hyper-parameters that differ from the constructor's defaults.
        train: training settings that differ from the benchmark's.
        benchmarks: the same two sections per benchmark or family of benchmarks; `orders` in one
            of them holds them per task order, by the benchmark's option ``order``.
        results: published numbers the recipe is meant to reach, with their source.
        search: what `clbench tune` tries: dotted keys to ranges (`clbench.tuning.space`); sections
            of benchmarks may hold one, too.
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)

    def layers(
        self, benchmark: BenchmarkRecipe, options: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """The sections that apply to a benchmark with these options, the most specific last."""
        general: dict[str, Any] = {
            "params": self.params,
            "train": self.train,
            "search": self.search,
        }
        names = dict.fromkeys([benchmark.family, benchmark.name])
        sections = [self.benchmarks[n] for n in names if n in self.benchmarks]
        order = str(options.get("order"))
        orders = [s["orders"][order] for s in sections if order in s.get("orders", {})]
        return [general, *sections, *orders]


_FILE = "_clbench_file"
"""Attribute of a class loaded from a file: the file's name, as it was given."""

R = TypeVar("R", BenchmarkRecipe, MethodRecipe)


def method_names() -> list[str]:
    """Names of all methods: the modules of `clbench.methods` and installed plug-ins.

    >>> "nusa" in method_names()
    True
    """
    return _class_names("method")


def methods() -> dict[str, type[Method]]:
    """All methods by name."""
    return {name: method(name) for name in method_names()}


def method(name: str) -> type[Method]:
    """Find a method by name, as ``package.module:Class`` or as ``file.py:Class``.

    Raises:
        ClbenchError: no such method.
    """
    return cast("type[Method]", _find("method", name))


def method_facts(name: str, *attributes: str) -> tuple[Any, ...]:
    """What a method's class says of itself, e.g. its `title`, without importing it if possible.

    A class of clbench's own whose attributes are literals is read, not imported: that would load
    PyTorch and take seconds, and lists and reports need nothing else of it. ``__doc__`` is the
    docstring without indentation.

    Raises:
        ClbenchError: no such method.

    >>> method_facts("gnsp", "title", "needs")
    ('GNSP', frozenset({'reference-images'}))
    """
    if name in _own_names("method"):
        inherited = _stated("clbench.core", "method")["Method"]
        for stated in _stated("clbench.methods", name).values():
            known = {**inherited, **stated}
            facts = tuple(known.get(attribute, _COMPUTED) for attribute in attributes)
            if known["name"] == name and _COMPUTED not in facts:
                return facts
    cls = method(name)
    documented = {"__doc__": inspect.getdoc(cls)}
    return tuple(documented.get(attribute, getattr(cls, attribute)) for attribute in attributes)


def probe_names() -> list[str]:
    """Names of all probes: the modules of `clbench.probes` and installed plug-ins.

    >>> "gap" in probe_names()
    True
    """
    return _class_names("probe")


def probe(name: str) -> type[Probe]:
    """Find a probe by name, as ``package.module:Class`` or as ``file.py:Class``.

    Raises:
        ClbenchError: no such probe.
    """
    return cast("type[Probe]", _find("probe", name))


def benchmark_names() -> list[str]:
    """Names of all benchmarks: the recipes and installed plug-ins."""
    return sorted({*_recipe_names("benchmarks"), *_plugins("clbench.benchmarks")})


def benchmark(name: str) -> BenchmarkRecipe:
    """Find a benchmark's recipe by name.

    ``folder:/path`` needs no recipe: it is a directory ``task/split/class/*.jpg``.
    A plug-in of the entry-point group ``clbench.benchmarks`` is a builder function; its recipe
    is made from its name and docstring.

    Raises:
        ClbenchError: no such benchmark.
    """
    if name.startswith(FOLDER):
        return _folder_recipe(name)
    if name in _recipe_names("benchmarks"):
        recipe = read_recipe("benchmarks", name)
        recipe.setdefault("family", name)
        return _build(BenchmarkRecipe, name, recipe)
    plugins = _plugins("clbench.benchmarks")
    if name in plugins:
        builder = _load_plugin(plugins[name], "benchmark")
        title = (inspect.getdoc(builder) or name).splitlines()[0]
        return BenchmarkRecipe(name, title, plugins[name].value, family=name)
    raise unknown_name("benchmark", name, [*benchmark_names(), f"{FOLDER}/path"])


def method_recipe(cls: type[Method]) -> MethodRecipe:
    """A method's recipe: clbench's own, or one that lies as ``<name>.yaml`` beside its module.

    Raises:
        ClbenchError: a recipe that is no mapping or has unknown keys.
    """
    name = cls.name
    if cls.__module__ == f"clbench.methods.{name}":
        return _build(MethodRecipe, name, read_recipe("methods", name))
    source = getattr(sys.modules.get(cls.__module__), "__file__", None)
    file = None if source is None else Path(source).with_name(f"{name}.yaml")
    if file is None or not file.is_file():
        return MethodRecipe(name)
    return _build(MethodRecipe, name, _as_mapping(file.read_text(encoding="utf-8"), str(file)))


def key_of(cls: type[Method]) -> str:
    """What a run of a class is called: its name, or where else the class can be found again.

    A class that stands in no module, as in a notebook, has nothing but its name.
    """
    # Asking installed packages for plug-ins takes longer than all the rest.
    known = cls.name in _own_names("method") or cls.name in _plugins("clbench.methods")
    if known and method(cls.name) is cls:
        return cls.name
    file = getattr(cls, _FILE, None)
    if file is not None:
        return f"{file}:{cls.__name__}"
    module = sys.modules.get(cls.__module__)
    if cls.__module__ != "__main__" and getattr(module, cls.__qualname__, None) is cls:
        return f"{cls.__module__}:{cls.__qualname__}"
    return cls.name


def study_names() -> list[str]:
    """Names of all studies: the recipes that ask a question; others are settings of single runs.

    >>> "rho-scan" in study_names()
    True
    """
    return [n for n in _recipe_names("studies") if "question" in read_recipe("studies", n)]


def read_recipe(kind: str, name: str) -> dict[str, Any]:
    """The content of ``experiments/<kind>/<name>.yaml``."""
    text = (files("clbench.experiments") / kind / f"{name}.yaml").read_text(encoding="utf-8")
    return _as_mapping(text, f"{kind}/{name}.yaml")


def recipe_names() -> list[str]:
    """All recipes as ``<kind>/<name>``."""
    kinds = ("benchmarks", "methods", "studies")
    return [f"{kind}/{name}" for kind in kinds for name in _recipe_names(kind)]


def _as_mapping(text: str, where: str) -> dict[str, Any]:
    try:
        content = _parsed(text) or {}
    except yaml.YAMLError as error:
        raise ClbenchError(f"recipe {where} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ClbenchError(f"recipe {where} must be a mapping")
    return copy.deepcopy(content)


@functools.lru_cache(maxsize=512)
def _parsed(text: str) -> Any:
    """The value that a recipe's text stands for; parsing takes longer than all the rest."""
    return load_yaml(text)


def _load_from_file(name: str, kind: Kind) -> type:
    """The class that ``file.py:Class`` names."""
    text, _, attribute = name.rpartition(":")
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise ClbenchError(f"{kind} {name!r}: there is no file {path}")
    module_name = f"{path.stem}@{path}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ClbenchError(f"{kind} {name!r}: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
        found = getattr(module, attribute)
    except Exception as error:
        del sys.modules[module_name]
        reason = " ".join(str(error).split())
        raise ClbenchError(
            f"{kind} {name!r} cannot be loaded: {type(error).__name__}: {reason}"
        ) from error
    cls = _checked(kind, name, found)
    setattr(cls, _FILE, text)
    return cls


def _class_names(kind: Kind) -> list[str]:
    """Names of clbench's own classes of a kind, and of those of plug-ins."""
    return sorted({*_own_names(kind), *_plugins(f"clbench.{kind}s")})


def _own_names(kind: Kind) -> list[str]:
    package = importlib.import_module(f"clbench.{kind}s")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__))


_COMPUTED: Final = object()
"""Stands for an attribute of a class that is no literal, so that only the class knows it."""


def _stated(package: str, module: str) -> dict[str, dict[str, Any]]:
    """What each class of a module says of itself: its docstring and its attributes.

    Those that are neither literals nor frozen sets of literals are `_COMPUTED`.
    """
    classes = {}
    for node in ast.parse((files(package) / f"{module}.py").read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        stated: dict[str, Any] = {"__doc__": ast.get_docstring(node)}
        for inner in node.body:
            if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                stated[inner.target.id] = _literal(inner.value)
            elif isinstance(inner, ast.FunctionDef):
                stated[inner.name] = _COMPUTED
        classes[node.name] = stated
    return classes


def _literal(node: Any) -> Any:
    try:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "frozenset":
            return frozenset(*map(ast.literal_eval, node.args))
        return ast.literal_eval(node)
    except ValueError:
        return _COMPUTED


def _find(kind: Kind, name: str) -> type:
    """A class by name, as ``package.module:Class`` or as ``file.py:Class``."""
    if ":" in name and name.rpartition(":")[0].endswith(".py"):
        return _load_from_file(name, kind)
    if ":" in name:
        found = _import_object(name, kind)
    elif name in _own_names(kind):
        found = _own_class(kind, name)
    elif (plugin := _plugins(f"clbench.{kind}s").get(name)) is not None:
        found = _load_plugin(plugin, kind)
    else:
        raise unknown_name(kind, name, _class_names(kind))
    return _checked(kind, name, found)


def _own_class(kind: Kind, name: str) -> Any:
    module, base = importlib.import_module(f"clbench.{kind}s.{name}"), _base(kind)
    for found in vars(module).values():
        own = inspect.isclass(found) and found.__module__ == module.__name__
        if own and issubclass(found, base) and getattr(found, "name", None) == name:
            return found
    raise ClbenchError(f"{kind}s/{name}.py defines no {base.__name__} with name = {name!r}")


def _checked(kind: Kind, name: str, found: Any) -> type:
    base = _base(kind)
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise ClbenchError(f"{name!r} is not a subclass of {base.__module__}.{base.__name__}")
    if not isinstance(getattr(found, "name", None), str):
        raise ClbenchError(f"{kind} class {found.__name__} needs a class attribute 'name'")
    return found


def _base(kind: Kind) -> type:
    base: type = getattr(importlib.import_module(f"clbench.core.{kind}"), kind.capitalize())
    return base


def _folder_recipe(name: str) -> BenchmarkRecipe:
    path = Path(name.removeprefix(FOLDER)).expanduser().resolve()
    title = f"One task per folder in {path}"
    builder = "clbench.datamodules.folder:tasks"
    return BenchmarkRecipe(f"{FOLDER}{path}", title, builder, "folder", {"path": str(path)})


def _recipe_names(kind: str) -> list[str]:
    folder = files("clbench.experiments") / kind
    names = [PurePosixPath(f.name) for f in folder.iterdir()] if folder.is_dir() else []
    return sorted(n.stem for n in names if n.suffix == ".yaml")


def _build(cls: type[R], name: str, content: dict[str, Any]) -> R:
    valid = {f.name for f in fields(cls)} - {"name"}
    for key in content:
        if key not in valid:
            raise unknown_name(f"key in recipe {name!r}", key, valid)
    return cls(name=name, **content)


def _plugins(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def _load_plugin(point: EntryPoint, kind: str) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise ClbenchError(f"{kind} plug-in {point.name!r} ({point.value}): {error}") from error


def _import_object(path: str, kind: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ClbenchError(f"{kind} {path!r} cannot be imported: {error}") from error
