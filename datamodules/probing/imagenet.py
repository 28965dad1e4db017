"""ImageNet and its variants from folders named by class: what no task trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from clbench.core.errors import ClbenchError
from clbench.core.task import ClassTexts
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.rgb import SUFFIXES
from clbench.datamodules.pixels.samples import Samples

if TYPE_CHECKING:
    from clbench.core.probe import GeneralSet
    from clbench.datamodules.pixels.decoded import Decoded


@dataclass(frozen=True)
class Variant:
    """A test set with ImageNet's classes, or some of them.

    Attributes:
        folders: where it may lie below the data root; the first is named in messages.
        classes: number of its classes.
        images: number of its images.
        page: where it comes from.
        numbered: whether folders are named 0 to 999 and not by WordNet ids.
    """

    folders: tuple[str, ...]
    classes: int
    images: int
    page: str
    numbered: bool = False


IMAGENET: Final = "imagenet"
VARIANTS: Final[dict[str, Variant]] = {
    IMAGENET: Variant(("imagenet/val", "imagenet/images/val"), 1000, 50_000, "image-net.org"),
    "imagenet-v2": Variant(
        (
            "imagenetv2-matched-frequency-format-val",
            "imagenetv2/imagenetv2-matched-frequency-format-val",
        ),
        1000,
        10_000,
        "huggingface.co/datasets/vaishaal/ImageNetV2",
        numbered=True,
    ),
    "imagenet-r": Variant(
        ("imagenet-r", "imagenet-rendition/imagenet-r"),
        200,
        30_000,
        "github.com/hendrycks/imagenet-r",
    ),
    "imagenet-a": Variant(
        ("imagenet-a", "imagenet-adversarial/imagenet-a"),
        200,
        7_500,
        "github.com/hendrycks/natural-adv-examples",
    ),
    "imagenet-sketch": Variant(
        ("imagenet-sketch", "sketch"), 1000, 50_889, "github.com/HaohanWang/ImageNet-Sketch"
    ),
}


def general_sets(
    root: Path, size: int, cache: Cache, *, first_id: int, quick: bool = False, quiet: bool = True
) -> tuple[GeneralSet, ...]:
    """All variants that lie in the data root; of partial ones also ImageNet's own classes.

    Args:
        root: the data root.
        size: side of the images.
        cache: where decoded images are kept.
        first_id: id of ImageNet's first class.
        quick: few images only.
        quiet: show no progress.

    Raises:
        ClbenchError: one is incomplete or holds something else.
    """
    # torch takes seconds to import, and `locate` does without.
    from clbench.core.probe import GeneralSet
    from clbench.datamodules.pixels.decoded import QUICK_TEST, Decoded

    found = {name: _read(name, root) for name in VARIANTS if _folder(name, root) is not None}
    if not found:
        return ()
    classes = imagenet_classes(first_id)
    about = QUICK_TEST if quick else None
    sets: dict[str, GeneralSet] = {}
    for name, (samples, places) in found.items():
        images = Decoded.of(samples, size, cache, name, about=about)
        images.file.hash_images(quiet=quiet)
        images.prepare(quiet=quiet)
        own = sets[name] = GeneralSet(name, classes.only(places), images)
        if len(places) < len(classes) and IMAGENET in sets and name != IMAGENET:
            clean = f"{name}-clean"
            known = np.array(found[IMAGENET][1])
            sets[clean] = GeneralSet(clean, own.classes, _only(sets[IMAGENET], known, places))
    return tuple(sets.values())


def _only(imagenet: GeneralSet, known: NDArray[np.int64], places: list[int]) -> Decoded:
    """ImageNet's own images of some classes.

    Args:
        imagenet: the whole set.
        known: place of each of its classes.
        places: of the classes, in the order in which they are numbered now.
    """
    from clbench.datamodules.pixels.decoded import Decoded

    images = imagenet.images
    assert isinstance(images, Decoded)
    labels = known[images.labels.numpy()]
    kept = np.flatnonzero(np.isin(labels, places))
    return Decoded(images.file, kept, np.searchsorted(np.array(places), labels[kept]))


def put_where(root: Path) -> dict[str, str]:
    """Where each variant is looked for, and where it comes from."""
    found = {}
    for name, variant in VARIANTS.items():
        inner = "0 to 999" if variant.numbered else "WordNet id"
        place = f"{root / variant.folders[0]}/<{inner}>/*.jpg"
        found[name] = f"{place} ({variant.images} images, {variant.page})"
    return found


def locate(name: str, root: Path) -> Path | None:
    """The folder of a variant; None if there is none.

    Raises:
        ClbenchError: it is incomplete or holds something else.
    """
    folder = _folder(name, root)
    if folder is not None:
        _read(name, root)
    return folder


def imagenet_classes(first_id: int) -> ClassTexts:
    """The 1000 classes with OpenAI's names and 80 templates, in the order of their WordNet ids."""
    from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    prompts = tuple(
        tuple(template(name) for template in OPENAI_IMAGENET_TEMPLATES)
        for name in IMAGENET_CLASSNAMES
    )
    ids = tuple(range(first_id, first_id + len(prompts)))
    return ClassTexts(tuple(IMAGENET_CLASSNAMES), prompts, ids)


def wordnet_ids() -> list[str]:
    """The ids of the 1000 classes, sorted."""
    from timm.data.imagenet_info import ImageNetInfo  # takes a second

    return sorted(ImageNetInfo().label_names())


def _folder(name: str, root: Path) -> Path | None:
    return next((root / f for f in VARIANTS[name].folders if (root / f).is_dir()), None)


def _read(name: str, root: Path) -> tuple[Samples, list[int]]:
    """All images, labelled within the classes that are there, and the places of these classes."""
    variant, folder = VARIANTS[name], _folder(name, root)
    assert folder is not None
    names = [str(i) for i in range(1000)] if variant.numbered else wordnet_ids()
    number = {class_name: i for i, class_name in enumerate(names)}
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.parent.name in number
    )
    classes = np.array([number[Path(file).parent.name] for file in files], dtype=np.int64)
    places = sorted(set(classes.tolist()))
    if (len(places), len(files)) != (variant.classes, variant.images):
        raise ClbenchError(
            f"{name} in {folder} has {len(files)} images of {len(places)} classes, not "
            f"{variant.images} of {variant.classes}: complete it (see {variant.page}), or move it "
            "away to leave it out"
        )
    labels = np.searchsorted(np.array(places), classes).astype(np.int64)
    return Samples(labels, folder, files=tuple(files)), places
