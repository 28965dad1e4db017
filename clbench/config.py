"""From recipes, a file and the command line to the validated settings of a run.

One precedence: defaults < benchmark recipe < method recipe < configuration file < command line.
A configuration is a tree with the keys ``benchmark``, ``method``, ``backbone``, ``train``,
``evaluation``, ``checkpoint_every`` (mappings) and ``seed``, ``precision``, ``device``,
``workers``, ``data_root``, ``deterministic``, ``logger``, ``probes``;
``benchmark`` and ``method`` hold a ``name`` beside the options of that benchmark or method.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from pydantic import BaseModel, ValidationError

from clbench import registry
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.foreign.yaml_text import load_yaml
from clbench.core.hyperparameters import validated
from clbench.core.settings import RunSettings
from clbench.trackers.choose import check_trackers

if TYPE_CHECKING:
    from clbench.core.method import Method

Tree = dict[str, Any]

SECTIONS = ("benchmark", "method", "backbone", "train", "evaluation", "checkpoint_every")
QUICK_STEPS = 4
OPEN_CLIP_NAMES = {"backbone.name": "backbone.model", "backbone.pretrained": "backbone.weights"}
MINI_WEIGHTS = "clbench.datamodules.mini:clip.safetensors"
EXPORTED_WEIGHTS = "open_clip_model.safetensors"
WEIGHT_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".bin"})


def resolve(
    method: str | type[Method] | None = None,
    benchmark: str | None = None,
    *,
    config: Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    quick: bool = False,
) -> tuple[RunSettings, type[Method]]:
    """Resolve and validate everything a run depends on, before data or weights load.

    Args:
        method: name, ``package.module:Class`` or class; the file's or ``nusa`` if None.
        benchmark: name; the file's or ``mini`` if None.
        config: a configuration tree, or a YAML file with one.
        overrides: dotted keys, e.g. ``{"method.rank": 16, "seed": 1}``.
        quick: cut steps and test images for a smoke run.

    Raises:
        ClbenchError: all problems found, one line each.
    """
    given = read_config(config) if isinstance(config, Path) else config or {}
    tree = _merge(given, nest(overrides or {}))
    tree = {key: _with_name(key, value) for key, value in tree.items()}
    names = {key: tree.get(key, {}).pop("name", None) for key in ("method", "benchmark")}
    for key, name in names.items():
        if not isinstance(name, str | type | None):
            raise ClbenchError(f"{key}.name must be a name, got {name!r}")
    chosen = method or names["method"] or "nusa"
    cls = registry.method(chosen) if isinstance(chosen, str) else chosen
    recipe = registry.benchmark(benchmark or names["benchmark"] or "mini")

    options = _merge(recipe.options, tree.pop("benchmark", {}))
    layers = registry.method_recipe(cls).layers(recipe, options)
    train = _merge(recipe.train, *(layer.get("train", {}) for layer in layers))
    params = _merge(*(layer.get("params", {}) for layer in layers), tree.pop("method", {}))
    problems: list[str] = []
    params = check_arguments("method", cls.schema(), params, problems)
    options = check_arguments("benchmark", recipe.option_schema(), options, problems)
    base: Tree = {"backbone": recipe.backbone, "train": train, "quick": quick}
    merged = _merge(base, tree)
    refused: list[str] = []
    instance = None if problems else _constructed(cls, params, refused)
    merged["method"] = {
        "name": chosen if isinstance(chosen, str) and ":" in chosen else registry.key_of(cls),
        "params": params,
        "decides_by_batch": instance is not None and instance.decides_by_batch,
    }
    merged["benchmark"] = {"name": recipe.name, "options": options}
    settings = _validated(merged, problems)
    if not problems:
        problems += refused
        _watched(cast(RunSettings, settings), problems)
    if problems:
        raise ClbenchError("\n".join(problems))
    return cast(RunSettings, settings), cls


def revive(
    content: Mapping[str, Any], cls: type[Method] | None = None, *, trust_code: bool = False
) -> tuple[RunSettings, type[Method]]:
    """The settings and the method of an earlier run, from the configuration in its result.

    Args:
        content: the configuration.
        cls: the method's class, for one that cannot be found by name, such as a notebook's.
        trust_code: import a method and probes that are named by where their code lies. The result
            of somebody else may name any module or file; without this, such probes are left out.

    Raises:
        ClbenchError: this version knows a setting, method or benchmark of it no longer, or its
            method is code that is not trusted.
    """
    problems: list[str] = []
    settings = _validated(dict(content), problems)
    if settings is None:
        raise ClbenchError("\n".join(problems))
    if not trust_code:  # accuracies are the same without probes from elsewhere
        own = tuple(name for name in settings.probes if ":" not in name)
        settings = settings.model_copy(update={"probes": own})
    cls = cls or _known_method(settings.method.name, trust_code)
    recipe = registry.benchmark(settings.benchmark.name)
    check_arguments("method", cls.schema(), settings.method.params, problems)
    check_arguments("benchmark", recipe.option_schema(), settings.benchmark.options, problems)
    if not problems:
        _constructed(cls, settings.method.params, problems)
    if problems:
        raise ClbenchError("\n".join(problems))
    return settings, cls


def _known_method(name: str, trust_code: bool) -> type[Method]:
    if ":" in name and not trust_code:
        raise ClbenchError(
            f"the method of this run is code named {name!r}, which is not imported just because a "
            "result names it: read that code, then add --trust-code (trust_code=True in Python)"
        )
    if ":" not in name and name not in registry.method_names():
        raise ClbenchError(
            f"the method {name!r} of this run cannot be found by name: its class was defined in a "
            "notebook or script, or its package is not installed. Install the package, or pass the "
            "class: clbench.rerun(path, method=Class); for the next run, put it into a file and "
            "name it as file.py:Class"
        )
    return registry.method(name)


def backbone_settings(text: str) -> Tree:
    """The settings that ``--backbone`` stands for.

    >>> backbone_settings("ViT-B-16/laion2b_s34b_b88k")
    {'backbone.model': 'ViT-B-16', 'backbone.weights': 'laion2b_s34b_b88k'}

    Args:
        text: ``mini``, an open_clip architecture with or without ``/tag`` (OpenAI's weights
            without), a weights file, or a folder that holds one as open_clip names it.

    Raises:
        ClbenchError: an empty architecture or tag.
    """
    if text == "mini":
        return {"backbone.model": "mini", "backbone.weights": MINI_WEIGHTS}
    if Path(text).expanduser().is_file() or Path(text).suffix in WEIGHT_SUFFIXES:
        return {"backbone.weights": text}
    if (exported := Path(text).expanduser() / EXPORTED_WEIGHTS).is_file():
        return {"backbone.weights": str(exported)}
    model, slash, tag = text.partition("/")
    if not model or (slash and not tag) or "/" in tag:
        raise ClbenchError(
            f"--backbone {text!r}: expected mini, ARCHITECTURE, ARCHITECTURE/TAG (for example "
            "ViT-B-16/openai) or a weights file that exists"
        )
    return {"backbone.model": model, "backbone.weights": tag or "openai"}


def named(
    backbone: str | None = None,
    settings: Mapping[str, Any] | None = None,
    logger: str | Sequence[str] | None = None,
    probes: str | Sequence[str] | None = None,
) -> Tree:
    """Settings by dotted key; those given one by one win over the backbone's short name.

    >>> named("ViT-B-16", {"train.lr": 0.1}, "csv")
    {'backbone.model': 'ViT-B-16', 'backbone.weights': 'openai', 'train.lr': 0.1, 'logger': 'csv'}
    """
    given = {**(backbone_settings(backbone) if backbone else {}), **(settings or {})}
    lists = {"logger": logger, "probes": probes}
    return {**given, **{key: value for key, value in lists.items() if value is not None}}


def read_config(path: Path) -> Tree:
    """Read a YAML configuration file.

    Raises:
        ClbenchError: missing, unreadable, not YAML or not a mapping.
    """
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClbenchError(f"cannot read --config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ClbenchError(f"--config {path} is not valid YAML: {reason}") from error
    if not isinstance(content, dict):
        raise ClbenchError(f"--config {path} must be a mapping, e.g. 'train: {{steps: 100}}'")
    return {str(key): value for key, value in content.items()}


def parse_assignments(assignments: Iterable[str]) -> Tree:
    """Turn ``key=value`` texts into a mapping; values are read as YAML.

    >>> parse_assignments(["method.rank=16", "train.lr=1e-3"])
    {'method.rank': 16, 'train.lr': 0.001}

    open_clip's names for architecture and tag are understood, too:

    >>> parse_assignments(["backbone.pretrained=openai"])
    {'backbone.weights': 'openai'}

    Raises:
        ClbenchError: no equals sign, or a value that is not YAML.
    """
    parsed: Tree = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ClbenchError(f"--set {text!r}: expected key=value, e.g. method.rank=16")
        key = OPEN_CLIP_NAMES.get(key.strip(), key.strip())
        parsed[key] = _parse_value(text, value)
    return parsed


def nest(dotted: Mapping[str, Any]) -> Tree:
    """Turn dotted keys into a tree.

    >>> nest({"train.lr": 0.1, "seed": 1})
    {'train': {'lr': 0.1}, 'seed': 1}
    """
    tree: Tree = {}
    for key, value in dotted.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ClbenchError(f"{key!r}: {part!r} is set to a value and cannot hold keys")
        node[last] = value
    return tree


def check_arguments(
    section: str,
    schema: Mapping[str, inspect.Parameter],
    values: Mapping[str, Any],
    problems: list[str],
) -> Tree:
    """Validate arguments against a signature and fill in its defaults.

    Problems are appended as lines that name key, value and the nearest valid name.
    """
    valid = _dotted(section, schema)
    unknown = [f"{section}.{key}" for key in values if key not in schema]
    problems.extend(str(unknown_name("key", key, valid)) for key in unknown)
    checked, invalid = validated(section, schema, values)
    problems.extend(invalid)
    return checked


def _dotted(section: str, names: Iterable[str]) -> list[str]:
    return [f"{section}.{name}" for name in names]


def _parse_value(text: str, value: str) -> Any:
    try:
        parsed = load_yaml(value)
    except yaml.YAMLError as error:
        raise ClbenchError(f"--set {text!r}: the value is not valid YAML") from error
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-3 as a text
        try:
            return float(parsed)
        except ValueError:
            return parsed
    return parsed


def _merge(*trees: Mapping[str, Any]) -> Tree:
    """Merge trees; later ones win. A mapping by task replaces a number, not the other way."""
    merged: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            old = merged.get(key)
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                value = _merge(old, value)
            merged[key] = value
    return merged


def _with_name(key: str, value: Any) -> Any:
    """Allow ``method: nusa`` for ``method: {name: nusa}``; sections must be mappings."""
    if key in ("method", "benchmark") and isinstance(value, str):
        return {"name": value}
    if key in SECTIONS and not isinstance(value, dict):
        raise ClbenchError(f"{key!r} must be a mapping, got {value!r}")
    return dict(value) if isinstance(value, dict) else value


def _validated(tree: Tree, problems: list[str]) -> RunSettings | None:
    try:
        settings = RunSettings.model_validate(tree)
    except ValidationError as error:
        found = {e["loc"][:2]: _setting_problem(e) for e in reversed(error.errors())}
        problems.extend(reversed(found.values()))
        return None
    return shortened(settings) if settings.quick else settings


def shortened(settings: RunSettings) -> RunSettings:
    """Cut the steps of a smoke run; the benchmark's builder cuts its images."""
    steps = settings.train.steps
    longest = max(steps.values()) if isinstance(steps, dict) else steps
    shorter = {"steps": min(QUICK_STEPS, longest), "epochs": None}
    train = settings.train.model_copy(update=shorter)
    return settings.model_copy(update={"train": train})


def _setting_problem(error: Any) -> str:
    """One line on an invalid setting, by the name the user gave it."""
    model: type[BaseModel] | None = RunSettings
    names: list[str] = []
    for part in error["loc"]:
        if model is None:  # deeper parts name the alternatives of a type, not settings
            break
        names.append(str(part))
        if part not in model.model_fields:
            prefix = ".".join(names[:-1])
            valid = _dotted(prefix, model.model_fields) if prefix else list(model.model_fields)
            return str(unknown_name("key", ".".join(names), valid))
        inner = model.model_fields[part].annotation
        model = inner if inspect.isclass(inner) and issubclass(inner, BaseModel) else None
    return f"{'.'.join(names)}={error['input']!r}: {_reason(error)}"


def _reason(error: Any) -> str:
    message = str(error["msg"])
    return message[:1].lower() + message[1:]


def _watched(settings: RunSettings, problems: list[str]) -> None:
    """Check that trackers can be used and probes are there."""
    checks: list[Callable[[], object]] = [partial(check_trackers, settings.logger)]
    checks += [partial(registry.probe, name) for name in settings.probes]
    for check in checks:
        try:
            check()
        except ClbenchError as error:
            problems.append(str(error))


def _constructed(cls: type[Method], params: Tree, problems: list[str]) -> Method | None:
    try:
        return cls(**params)
    except ClbenchError as error:
        problems.append(f"method {cls.name!r}: {error}")
        return None
