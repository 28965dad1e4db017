"""Which images and tasks a benchmark uses: the seeded 80/20 split, the k-shot draw, listed orders.

Splits and draws are kept as index files, each drawn once per data folder and checked at every use,
so that a data set that has changed is noticed before it changes a number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.files import write_atomic
from clbench.core.foreign.json_text import load_json
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.samples import Samples

FORMAT: Final = 1
SPLIT_SEED: Final = 42
TRAIN_SHARE: Final = 0.8

Parts = dict[str, list[int]]


def random_split_indices(size: int) -> tuple[list[int], list[int]]:
    """Train and test indices of the published 80/20 split, each sorted.

    The sets are those of ``torch.utils.data.random_split`` with the lengths ``int(0.8 n)`` and
    the rest, and a generator seeded with 42. Published code applies it to files in torchvision's
    order: that is the sorted order used here for Caltech101 and EuroSAT, which are therefore split
    as published, but the order of the file system for SUN397, of which only the sizes agree.

    >>> random_split_indices(5)
    ([0, 2, 3, 4], [1])
    """
    order = torch.randperm(size, generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
    cut = int(TRAIN_SHARE * size)
    return sorted(order[:cut]), sorted(order[cut:])


def random_split(name: str, samples: Samples, cache: Cache) -> tuple[Samples, Samples]:
    """Split a data set that has no official split.

    Args:
        name: name of the data set.
        samples: all its images, sorted.
        cache: where index files are kept.

    Raises:
        ClbenchError: the data set or the index file has changed since the split was drawn.
    """

    def draw() -> Parts:
        train, test = random_split_indices(len(samples))
        return {"train": train, "test": test}

    rule = {"kind": "random split", "train share": TRAIN_SHARE, "seed": SPLIT_SEED}
    parts = _indices(cache.path(f"{name}-random-split.json"), name, rule, samples, draw)
    return samples.subset(parts["train"]), samples.subset(parts["test"])


def few_shot(
    name: str, samples: Samples, class_names: Sequence[str], shots: int, seed: int, cache: Cache
) -> Samples:
    """Draw `shots` training images per class, the same for every method and training seed.

    Args:
        name: name of the data set.
        samples: its training images.
        class_names: names of its classes, all of which must have images.
        shots: images per class.
        seed: seed of the draw, not of the training.
        cache: where index files are kept.

    Raises:
        ClbenchError: a class has too few images, or the data set or the index file has changed
            since the draw.
    """

    def draw() -> Parts:
        _check_class_sizes(name, samples, class_names, shots)
        return {"train": few_shot_indices(torch.from_numpy(samples.labels), shots, seed, name)}

    rule = {"kind": "few shot", "shots": shots, "seed": seed}
    path = cache.path(f"{name}-{shots}shot-seed{seed}.json")
    return samples.subset(_indices(path, name, rule, samples, draw)["train"])


def few_shot_indices(labels: Tensor, shots: int, seed: int, name: str) -> list[int]:
    """Draw `shots` indices per class.

    Every class is drawn from its sorted indices with a generator of its own, so the choice
    depends on nothing but the arguments.

    Args:
        labels: ``(N,)`` class indices.
        shots: images per class.
        seed: seed of the draw, not of the training.
        name: name of the data set, for the error message.

    Returns:
        Sorted indices, `shots` times the number of classes.

    Raises:
        ClbenchError: a class has fewer than `shots` images.
    """
    classes = labels.numpy()
    chosen: list[int] = []
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        if len(members) < shots:
            raise ClbenchError(
                f"{name}: class {label} has {len(members)} training images, "
                f"fewer than the {shots} asked for"
            )
        rng = np.random.default_rng([seed, int(label)])
        chosen.extend(int(i) for i in rng.choice(members, size=shots, replace=False))
    return sorted(chosen)


def listed_order(
    order: Sequence[str], valid: Collection[str], kind: str
) -> tuple[tuple[str, ...], str]:
    """Tasks in the order of a list, and the name of that order.

    Args:
        order: names of tasks.
        valid: those that there are.
        kind: what messages call one of them.

    Raises:
        ClbenchError: a name that does not exist, or a list that is empty or names one twice.
    """
    for name in order:
        if name not in valid:
            raise unknown_name(f"{kind} in benchmark.order", name, valid)
    if not order or len(set(order)) < len(order):
        raise ClbenchError(f"benchmark.order={order} must name one {kind} or more, each once")
    return tuple(order), ", ".join(order)


def validation_indices(labels: Tensor) -> tuple[list[int], list[int]]:
    """Split training images in two: to train on, and to test on while settings are searched.

    A fifth of every class is drawn, rounded, at least one image; a class with a single image keeps
    it for training.

    >>> validation_indices(torch.tensor([0, 0, 0, 1]))
    ([1, 2, 3], [0])

    Args:
        labels: ``(N,)`` class indices.

    Returns:
        Sorted indices of both parts.
    """
    classes = labels.numpy()
    drawn: list[int] = []
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        count = max(1, round((1 - TRAIN_SHARE) * len(members))) if len(members) > 1 else 0
        rng = np.random.default_rng([SPLIT_SEED, int(label)])
        drawn += rng.choice(members, size=count, replace=False).tolist()
    kept = np.setdiff1d(np.arange(len(classes)), drawn).tolist()
    return kept, sorted(drawn)


def _check_class_sizes(name: str, samples: Samples, class_names: Sequence[str], shots: int) -> None:
    counts = np.bincount(samples.labels, minlength=len(class_names))
    for label in np.flatnonzero(counts < shots).tolist():
        raise ClbenchError(
            f"{name}: class {class_names[label]!r} has {counts[label]} training images, fewer "
            f"than benchmark.shots={shots}"
        )


def _indices(
    path: Path, name: str, rule: Mapping[str, Any], samples: Samples, draw: Callable[[], Parts]
) -> Parts:
    """The indices of an index file, which is created if missing."""
    identity = {"format": FORMAT, "data set": name, "rule": dict(rule), "source": samples.digest()}
    stored = _read(path)
    if stored is not None:
        return _checked(path, stored, identity)
    parts = draw()
    content = {**identity, "sha256": _digest(parts), "indices": parts}
    try:
        write_atomic(path, json.dumps(content) + "\n")
    except ClbenchError:
        # In a read-only folder the draw is repeated in every run; it depends on its arguments only.
        return parts
    return parts


def _read(path: Path) -> Any:
    try:
        return load_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None
    except (OSError, ValueError) as error:
        raise ClbenchError(
            f"the index file {path} cannot be read ({error}): delete it to draw the split again"
        ) from error


def _checked(path: Path, stored: Any, identity: Mapping[str, Any]) -> Parts:
    """The indices of a stored file, checked against its own hash and the data."""
    try:
        parts: Parts = stored["indices"]
        sound = stored["sha256"] == _digest(parts)
        differing = [key for key, value in identity.items() if stored[key] != value]
    except (KeyError, TypeError):
        sound, differing = False, []
    if not sound:
        raise ClbenchError(f"the index file {path} is damaged: delete it to draw the split again")
    if "source" in differing:
        raise ClbenchError(
            f"{identity['data set']} has changed since {path} was drawn (images were added, "
            "removed or replaced): restore the data set, or delete that file to draw the split "
            "again"
        )
    if differing:
        raise ClbenchError(
            f"the index file {path} was drawn by another rule ({', '.join(differing)} differ): "
            "delete it to draw the split again"
        )
    return parts


def _digest(parts: Parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
