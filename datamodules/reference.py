"""Reference pairs for distillation: images with captions that belong to no task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from clbench.core.data import ImageSet, ReferencePairs
from clbench.core.errors import ClbenchError
from clbench.core.task import ClassTexts

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


def draw(available: int, count: int, seed: int) -> np.ndarray:
    """Sorted indices of at most `count` out of `available` items, drawn without repetition."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(available, size=min(count, available), replace=False))


def task_pairs(images: ImageSet, classes: ClassTexts, count: int, seed: int) -> ReferencePairs:
    """Training images of a task with its training prompts as captions."""
    chosen, labels = images.__getitems__(draw(len(images), count, seed).tolist())
    return ReferencePairs(chosen, classes.training_prompts, labels, source="task")


def folder_pairs(folder: str, count: int, seed: int, image_size: int) -> ReferencePairs:
    """Images of a folder ``class/*.jpg`` with the caption "a photo of a {class}".

    Underscores in class names become spaces, and "an" stands before a vowel. Images are
    resized (shorter side, bicubic) and centre-cropped.

    Raises:
        ClbenchError: the folder is missing or holds no images in class folders, or an image
            cannot be read.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ClbenchError(
            f"method.reference: {folder!r} is neither 'task', 'benchmark' nor a folder"
        )
    paths = sorted(p for p in root.glob("*/*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ClbenchError(f"no images in {root}: expected {root}/<class name>/<image>.jpg")
    chosen = [paths[i] for i in draw(len(paths), count, seed)]
    names = sorted({p.parent.name for p in chosen})
    images = torch.stack([_read(p, image_size) for p in chosen])
    labels = torch.tensor([names.index(p.parent.name) for p in chosen])
    return ReferencePairs(images, tuple(map(_caption, names)), labels, source=f"folder:{root}")


def _caption(class_name: str) -> str:
    words = class_name.replace("_", " ")
    article = "an" if words[:1].lower() in set("aeiou") else "a"
    return f"a photo of {article} {words}"


def _read(path: Path, size: int) -> Tensor:
    """One image as ``(3, size, size)`` uint8."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise ClbenchError(f"cannot read the image {path}: {error}") from error
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    array = np.array(image.crop((left, top, left + size, top + size)))
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
