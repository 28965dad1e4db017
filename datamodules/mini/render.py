"""Pictures and captions of the `mini` benchmark, rendered from nothing but seeds.

Each picture has its own random generator, seeded by the names of its pool and domain and by its
number in the pool. So a picture never depends on how many others are rendered with it, and pools
never share one.
"""

import functools
import hashlib
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clbench.datamodules.mini import canvas, captions, domains, filters, glyphs, textures
from clbench.datamodules.mini.canvas import CANVAS, SIDE, Style, sample_look
from clbench.datamodules.mini.captions import caption, reference_caption
from clbench.datamodules.mini.domains import DOMAINS, Domain

Split = Literal["train", "test"]
Rendering = Literal["official", "validation"]


def render_split(
    domain: str, split: str, count: int, rendering: str = "official"
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Render the pictures of one downstream task, in wild style.

    Classes are balanced as evenly as `count` allows, in random order.

    Args:
        domain: A key of `DOMAINS`.
        split: "train" or "test".
        count: Number of pictures N; a smaller number gives a prefix of a larger one.
        rendering: "official", or "validation" for the separate pictures, of both splits, on which
            hyper-parameters are tuned.

    Returns:
        Images, shape (N, 3, 32, 32), and class numbers, shape (N,).

    Raises:
        ValueError: If a name is unknown or `count` is negative.
    """
    _require(domain, DOMAINS, "domain")
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    labels = _balanced_labels(domain, f"{rendering}/{split}", count)
    return render_classes(domain, labels.tolist(), split, 0, rendering), labels


def render_classes(
    domain: str, labels: Sequence[int], split: str, first: int, rendering: str = "official"
) -> NDArray[np.uint8]:
    """Render pictures of chosen classes of one downstream task, in wild style.

    Args:
        domain: A key of `DOMAINS`.
        labels: N class numbers.
        split: "train" or "test".
        first: Number of the first picture in its pool; `render_split` takes them from 0 on.
        rendering: As in `render_split`.

    Returns:
        Images, shape (N, 3, 32, 32).

    Raises:
        ValueError: If a name is unknown.
    """
    _require(domain, DOMAINS, "domain")
    _require(split, get_args(Split), "split")
    _require(rendering, get_args(Rendering), "rendering")
    pool = f"{rendering}/{split}"
    images = np.empty((len(labels), 3, SIDE, SIDE), np.uint8)
    for i, label in enumerate(labels):
        images[i], _ = _render(DOMAINS[domain], label, "wild", pool, first + i)
    return images


def reference_pairs(count: int, rendering: str = "official") -> tuple[NDArray[np.uint8], list[str]]:
    """Render pictures in clean style from all 14 domains, never seen in pretraining.

    Args:
        count: Number of pictures N; classes take turns, in random order.
        rendering: "official" or "validation".

    Returns:
        Images, shape (N, 3, 32, 32), and their captions, one fixed caption per class.
    """
    _require(rendering, get_args(Rendering), "rendering")
    pool = f"{rendering}/reference"
    classes = [(domain, i) for domain in DOMAINS.values() for i in range(len(domain.classes))]
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    captions = []
    for number in range(count):
        order = _permutation(pool, number // len(classes), len(classes))
        domain, label = classes[order[number % len(classes)]]
        images[number], _ = _render(domain, label, "clean", pool, number)
        captions.append(reference_caption(domain, label))
    return images, captions


def pretraining_pairs(style: Style, start: int, stop: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Render pictures number `start` to `stop` of the endless pretraining pool of one style.

    Domains with more classes are drawn more often (with the square root of their number).

    Returns:
        Images, shape (stop - start, 3, 32, 32), and their captions.
    """
    domains = list(DOMAINS.values())
    weights = np.sqrt([len(domain.classes) for domain in domains])
    images = np.empty((stop - start, 3, SIDE, SIDE), np.uint8)
    captions = []
    for number in range(start, stop):
        rng = _generator("pretraining", style, number)
        domain = domains[rng.choice(len(domains), p=weights / weights.sum())]
        label = int(rng.integers(len(domain.classes)))
        images[number - start], text = _render(domain, label, style, "pretraining", number)
        captions.append(text)
    return images, captions


@functools.cache
def renderer_hash() -> str:
    """Hex digest of all that pictures and captions depend on: a key for caches of them."""
    modules = (canvas, captions, domains, filters, glyphs, textures)
    files = [Path(str(module.__file__)) for module in modules] + [Path(__file__)]
    files += [glyphs.FONT_FOLDER / font for font in glyphs.FONTS]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    for package in ("pillow", "numpy", "scikit-learn"):
        digest.update(f"{package} {importlib.metadata.version(package)}\0".encode())
    return digest.hexdigest()


def _require(name: str, known: Sequence[str] | dict[str, Domain], what: str) -> None:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}: choose one of {', '.join(known)}")


def _generator(*names: object) -> np.random.Generator:
    # The built-in hash() differs between processes.
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest[:16], "big")))


def _permutation(pool: str, turn: int, count: int) -> NDArray[np.int64]:
    return _generator(pool, "order", turn).permutation(count)


def _balanced_labels(domain: str, pool: str, count: int) -> NDArray[np.int64]:
    """Class numbers, shape (count,): every class once, in random order, then all again."""
    classes = len(DOMAINS[domain].classes)
    turns = [
        _permutation(f"{pool}/{domain}", turn, classes) for turn in range(-(-count // classes))
    ]
    return np.concatenate([np.empty(0, np.int64), *turns])[:count]


def _render(
    domain: Domain, label: int, style: Style, pool: str, number: int
) -> tuple[NDArray[np.uint8], str]:
    """Draw one picture, shape (3, 32, 32), and caption it."""
    rng = _generator(pool, domain.name, style, number)
    look = sample_look(style, pool, rng)
    picture: Image.Image = domain.draw(label, look, rng).reduce(CANVAS // SIDE)
    return np.asarray(picture).transpose(2, 0, 1), caption(domain, label, look, rng)
