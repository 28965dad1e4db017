"""The schedule that pretrains the tiny CLIP of the `mini` benchmark, whole or a share of it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from clbench.core.files import IN_CACHE
from clbench.datamodules.mini.sequence import VERSION


@dataclass(frozen=True)
class Recipe:
    """Settings of the pretraining.

    Attributes:
        steps: Optimizer steps of both stages together.
        mixed_steps: Optimizer steps of the second stage.
        cosine_steps: Length of the cosine that the first stage follows. The stage ends before the
            cosine does, at about the learning rate at which the second stage takes over.
        wild_share: Share of wild pictures in the batches of the second stage.
        clean_images: Number of distinct clean pictures.
        wild_images: Number of distinct wild pictures.
        batch_size: Pairs per step.
        learning_rate: Peak learning rate of the first stage.
        mixed_learning_rate: Peak learning rate of the second stage.
        weight_decay: Weight decay of AdamW, for matrices only.
        warmup: Steps of linear warm-up at the start.
        seed: Seed of the weights and of the batches.
    """

    steps: int = 2750
    mixed_steps: int = 500
    cosine_steps: int = 4000
    wild_share: float = 0.016
    clean_images: int = 160_000
    wild_images: int = 40_000
    batch_size: int = 256
    learning_rate: float = 1.5e-3
    mixed_learning_rate: float = 6e-4
    weight_decay: float = 0.1
    warmup: int = 100
    seed: int = 0

    @property
    def clean_steps(self) -> int:
        """Optimizer steps of the first stage."""
        return self.steps - self.mixed_steps

    def shortened(self, share: float) -> Recipe:
        """A complete schedule of a share of the length.

        Stages, warm-up and the number of distinct pictures are scaled alike, so that the learning
        rate comes down as in the full schedule and pictures are seen as often. A model out of the
        middle of the full schedule would differ in both, and would not know the second stage.

        >>> Recipe().shortened(0.1).steps
        275
        """
        scaled = {name: max(1, round(share * getattr(self, name))) for name in _SCALED}
        return replace(self, **scaled)

    @property
    def weights(self) -> str:
        """What ``backbone.weights`` calls the model of this recipe in the user's cache folder.

        The name is a hash of the recipe and of the version of `mini`, whose pictures it sees.
        """
        made_of = json.dumps([VERSION, asdict(self)], sort_keys=True)
        digest = hashlib.sha256(made_of.encode()).hexdigest()[:12]
        return f"{IN_CACHE}mini/weights/{digest}.safetensors"


_SCALED = ("steps", "mixed_steps", "cosine_steps", "warmup", "clean_images", "wild_images")


def learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up and a cosine, then the second stage's own cosine to zero."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    if step < recipe.clean_steps:
        progress = (step - recipe.warmup) / (recipe.cosine_steps - recipe.warmup)
        return recipe.learning_rate * _cosine(progress)
    return recipe.mixed_learning_rate * _cosine((step - recipe.clean_steps) / recipe.mixed_steps)


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def draw_batch(step: int, recipe: Recipe) -> NDArray[np.int64]:
    """Numbers of the pictures of one step; wild pictures are numbered after the clean ones."""
    rng = np.random.default_rng([recipe.seed, step])
    wild = round(recipe.wild_share * recipe.batch_size) if step >= recipe.clean_steps else 0
    return np.concatenate([
        rng.integers(recipe.clean_images, size=recipe.batch_size - wild),
        recipe.clean_images + rng.integers(max(1, recipe.wild_images), size=wild),
    ])  # fmt: skip
