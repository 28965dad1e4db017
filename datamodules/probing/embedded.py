"""What probes look at on the embedded CLIP: domains that only pre-training saw, and captions.

All pictures are rendered from seeds of their own, so that neither pre-training nor a task has seen
them. Version 1 is frozen, as the embedded benchmark is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from clbench.core.probe import CaptionedSet, GeneralSet
from clbench.core.task import ClassTexts
from clbench.datamodules.mini.cache import cached
from clbench.datamodules.mini.canvas import CANVAS, SIDE, Look, Style, sample_look
from clbench.datamodules.mini.domains import DOMAINS, Domain
from clbench.datamodules.pixels.images import ImageTensors

VERSION: Final = 1
GENERAL_SIZE: Final = 200
"""Pictures of a domain in a style."""
CAPTIONED_SIZE: Final = 800
QUICK: Final = 32
"""Pictures of a set that a smoke run looks at."""
STYLES: Final[Mapping[Style, str]] = {"clean": "", "wild": "-wild"}
"""Ending of a set's name for each style: that of pre-training, and that of the tasks."""


def general_sets(root: Path, *, first_id: int, quick: bool = False) -> tuple[GeneralSet, ...]:
    """The domains that are no task, in both styles.

    Args:
        root: folder of the cache.
        first_id: id of the first class.
        quick: few pictures only.
    """

    def render() -> dict[str, NDArray[np.generic]]:
        return {
            f"{domain.name}{ending}": np.stack([
                draw(domain, i % len(domain.classes), style, "probing/general", i)[0]
                for i in range(GENERAL_SIZE)
            ])
            for domain in _unlearned()
            for style, ending in STYLES.items()
        }  # fmt: skip

    names = [f"{domain.name}{ending}" for domain in _unlearned() for ending in STYLES.values()]
    arrays = cached(root, VERSION, "probing-general", names, render)
    sets = []
    for domain in _unlearned():
        count = len(domain.classes)
        named = ClassTexts.from_templates(domain.classes, domain.templates)
        classes = ClassTexts(named.names, named.prompts, tuple(range(first_id, first_id + count)))
        size = QUICK if quick else GENERAL_SIZE
        labels = torch.arange(size) % count
        for ending in STYLES.values():
            name = f"{domain.name}{ending}"
            images = ImageTensors(torch.from_numpy(arrays[name][:size]), labels)
            sets.append(GeneralSet(name, classes, images))
    return tuple(sets)


def captioned_set(root: Path, *, quick: bool = False) -> CaptionedSet:
    """Pictures of all domains in the style of pre-training, with captions that tell them apart.

    Args:
        root: folder of the cache.
        quick: few pictures only.
    """

    def render() -> dict[str, NDArray[np.generic]]:
        images, captions = captioned_pictures(CAPTIONED_SIZE)
        pairs = [(text, owner) for owner, texts in enumerate(captions) for text in texts]
        return {
            "images": images,
            "captions": np.array([text for text, _ in pairs]),
            "owners": np.array([owner for _, owner in pairs]),
        }

    keys = ("images", "captions", "owners")
    arrays = cached(root, VERSION, "probing-captioned", keys, render)
    size = QUICK if quick else CAPTIONED_SIZE
    owners = arrays["owners"].astype(np.int64)
    kept = owners < size
    images = torch.from_numpy(arrays["images"][:size])
    return CaptionedSet(
        "mini",
        ImageTensors(images, torch.zeros(len(images), dtype=torch.int64)),
        tuple(arrays["captions"][kept].tolist()),
        tuple(owners[kept].tolist()),
    )


def captioned_pictures(count: int) -> tuple[NDArray[np.uint8], list[tuple[str, ...]]]:
    """Pictures ``(count, 3, 32, 32)`` and their captions; no caption fits two of them.

    The domains take turns; a picture with a caption that another has already is left out.
    """
    domains = list(DOMAINS.values())
    images: list[NDArray[np.uint8]] = []
    captions: list[tuple[str, ...]] = []
    known: set[str] = set()
    number = 0
    while len(images) < count:
        domain = domains[number % len(domains)]
        label = number // len(domains) % len(domain.classes)
        image, look = draw(domain, label, "clean", "probing/captioned", number)
        texts = describe(domain, label, look)
        if not known.intersection(texts):
            known.update(texts)
            images.append(image)
            captions.append(texts)
        number += 1
    return np.stack(images), captions


def draw(
    domain: Domain, label: int, style: Style, pool: str, number: int
) -> tuple[NDArray[np.uint8], Look]:
    """One picture ``(3, 32, 32)`` by its place in a pool, and how it was drawn."""
    digest = hashlib.sha256(f"{pool}/{domain.name}/{style}/{number}".encode()).digest()
    rng = np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest[:16], "big")))
    look = sample_look(style, pool, rng)
    picture = domain.draw(label, look, rng).reduce(CANVAS // SIDE)
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1), look


def describe(domain: Domain, label: int, look: Look) -> tuple[str, ...]:
    """Captions that name all that shows: class, colours, size, and position or paper."""
    phrase = domain.classes[label]
    if domain.coloured and look.ink_name:
        phrase = f"{look.ink_name} {phrase}"
    if domain.placed and look.size_name:
        phrase = f"{look.size_name} {phrase}"
    article = "an" if domain.article == "a" and phrase[0] in "aeiou" else domain.article
    phrase = f"{article} {phrase}".strip()
    shown = domain.coloured or domain.placed
    paper = f" on {look.paper_name} paper" if shown and look.paper_name else ""
    place = f" {look.position_name}" if domain.placed and look.position_name else paper
    return (f"{phrase}{paper}", f"a picture of {phrase}{place}")


def captions_digest(captioned: CaptionedSet) -> str:
    """SHA-256 over captions, their owners and the images."""
    texts = json.dumps([captioned.captions, captioned.owners]).encode()
    return hashlib.sha256(texts + captioned.images.digest().encode()).hexdigest()


def _unlearned() -> list[Domain]:
    return [domain for domain in DOMAINS.values() if not domain.downstream]
