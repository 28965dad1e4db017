"""Which settings make two runs the same run: what the name of a run directory is made of.

The hash is taken over the settings of the first release, each with its value, and over how the
settings that came later differ from the defaults they came with. So a new setting leaves all
existing run directories where they are, and a default that changes one day does not: runs with
the new default then differ from the frozen one. Tests require every setting to be listed here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

INDIFFERENT: Final = frozenset(
    {
        "seed",  # stands in the directory's name beside the hash
        "device",
        "workers",
        "data_root",
        "cache_root",
        "logger",
        "checkpoint_every",
        "compile",
        "probes",
        "evaluation",  # but see `decisive`
    }
)
"""Settings that change how a run is made and watched, not its numbers."""

FIRST: Final = frozenset(
    {
        "backbone.model",
        "backbone.weights",
        "benchmark.name",
        "benchmark.options",
        "method.name",
        "method.params",
        "precision",
        "quick",
        "train.augmentation",
        "train.batch_size",
        "train.betas",
        "train.clip_grad_norm",
        "train.lr",
        "train.steps",
        "train.warmup",
        "train.weight_decay",
    }
)
"""Settings of the first release."""

LATER: Final[Mapping[str, Any]] = {
    "deterministic": False,
    "devices": 1,
    "first_tasks": None,
    "method.decides_by_batch": False,
    "tested_on": "test",
    "train.epochs": None,
    "train.momentum": 0.0,
    "train.optimizer": "adamw",
    "train.schedule": "cosine",
}
"""Settings that came later, with the defaults they came with. Entries are never changed."""

LATER_OPTIONS: Final[Mapping[str, Any]] = {
    "splits": "zscl",
    "order": "alphabetical",
    "shift": "none",
}
"""The same of options of benchmarks, which are recorded with their defaults."""

LATER_PARAMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "diki": {"gates": False},
    "lora": {"start": "random"},
}
"""The same of hyper-parameters, by method."""

RENAMED: Final[Mapping[str, str]] = {
    "clbench.datamodules:mini_clip.safetensors": "clbench.datamodules.mini:clip.safetensors",
}
"""Values of ``backbone.weights`` that were renamed: first name to present name."""


def decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The part of resolved settings, as JSON values, that decides the numbers of a run.

    The batch size of tests is part of it only for methods that decide by the batch.
    """
    first_names = {new: old for old, new in RENAMED.items()}
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        if key in INDIFFERENT:
            continue
        if isinstance(value, Mapping):
            inner = {k: v for k, v in value.items() if not _is_default(f"{key}.{k}", v)}
            tree[key] = inner
        elif not _is_default(key, value):
            tree[key] = value
    tree["benchmark"]["options"] = chosen_options(tree["benchmark"]["options"])
    later = LATER_PARAMS.get(tree["method"]["name"], {})
    params = tree["method"]["params"].items()
    tree["method"]["params"] = {k: v for k, v in params if k not in later or later[k] != v}
    weights = tree["backbone"]["weights"]
    tree["backbone"]["weights"] = first_names.get(weights, weights)
    if settings["method"]["decides_by_batch"]:
        tree["evaluation"] = {"batch_size": settings["evaluation"]["batch_size"]}
    return tree


def chosen_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a benchmark without those that came later and have the default they came with."""
    return {k: v for k, v in options.items() if k not in LATER_OPTIONS or LATER_OPTIONS[k] != v}


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Eight hex digits over `decisive` settings."""
    text = json.dumps(decisive(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_default(key: str, value: Any) -> bool:
    return key in LATER and value == LATER[key]
