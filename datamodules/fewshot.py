"""The k-shot draw: k training images per class, the same for every method and seed."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from clbench.core.errors import ClbenchError


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
