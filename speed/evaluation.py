"""Testing: images per second through the model, and out of the cache of decoded images."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clbench.clip.model import REMEMBERED
from clbench.clip.shortcuts.constancy import Memo
from clbench.datamodules.pixels.augment import ResizeAndCrop
from clbench.datamodules.pixels.data_folder import Cache
from clbench.datamodules.pixels.decoded_file import DecodedFile
from clbench.datamodules.pixels.samples import Samples
from speed import plain
from speed.machine import alternate, ratio
from speed.setting import Size, build_model, class_texts, random_images

PLAIN_BATCH = 64
SHIPPED_BATCH = 256


def scoring(
    size: Size, device: torch.device, classes: int, images: int, repeats: int
) -> dict[str, Any]:
    """Score images among classes: texts of full length and whole blocks, or shipped."""
    model = build_model(size, device).eval()
    encoders = plain.Encoders.of(model)
    texts = class_texts(classes)
    tokens = model.tokenize(texts.training_prompts)
    pixels = random_images(model, images, 2)

    @torch.no_grad()
    def slow() -> torch.Tensor:
        features = encoders.text(tokens)
        parts = []
        for chunk in pixels.split(PLAIN_BATCH):
            normalised = (chunk.to(device) / 255 - model.mean) / model.std
            logits = model.logit_scale.exp() * encoders.image(normalised) @ features.T
            parts.append(logits.argmax(1).cpu())  # one wait for the device per batch
        return torch.cat(parts)

    @torch.inference_mode()
    def fast() -> torch.Tensor:
        model._memo = Memo(REMEMBERED)  # a model that has just been trained
        parts = [
            model.logits(chunk, model.class_features(texts)).argmax(1)
            for chunk in pixels.split(SHIPPED_BATCH)
        ]
        return torch.cat(parts).cpu()

    plain_seconds, shipped_seconds = alternate([slow, fast], repeats, device, warmup=0)
    return {
        "classes": classes,
        "images": images,
        "same_answers": bool(torch.equal(slow(), fast())),
        "plain_seconds": plain_seconds,
        "shipped_seconds": shipped_seconds,
        "shipped_images_per_second": images / min(shipped_seconds),
        "ratio": ratio(plain_seconds, shipped_seconds),
    }


def reading(count: int, repeats: int, side: int = 224) -> dict[str, Any]:
    """Read a test set of 500-pixel JPEGs by decoding it, and from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        samples = _write_images(Path(folder), count)
        cached = DecodedFile(samples, ResizeAndCrop(side), Cache(Path(folder)), "cached")
        cached.build(quiet=True)
        decoding = DecodedFile(samples, ResizeAndCrop(side), None, "decoded")

        def read(file: DecodedFile) -> list[np.ndarray[Any, Any]]:
            parts = range(0, count, SHIPPED_BATCH)
            return [file.read(range(i, min(i + SHIPPED_BATCH, count))) for i in parts]

        slow, fast = alternate(
            [lambda: read(decoding), lambda: read(cached)], repeats, torch.device("cpu")
        )
        same = all(np.array_equal(a, b) for a, b in zip(read(decoding), read(cached), strict=True))
        return {
            "images": count,
            "same_pixels": same,
            "decoded_images_per_second": count / min(slow),
            "cached_images_per_second": count / min(fast),
            "plain_seconds": slow,
            "shipped_seconds": fast,
            "ratio": ratio(slow, fast),
        }


def _write_images(folder: Path, count: int) -> Samples:
    """Random smooth JPEGs of 500 x 375 pixels."""
    random = np.random.default_rng(0)
    names = []
    for i in range(count):
        coarse = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        names.append(f"{i}.jpg")
        image.save(folder / names[-1], quality=90)
    return Samples(np.zeros(count, dtype=np.int64), folder, files=tuple(names))
