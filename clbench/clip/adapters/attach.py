"""Putting low-rank layers into a model, and plain layers back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from clbench.clip.adapters.lowrank import LowRankLinear
from clbench.clip.adapters.singular import SingularLinear
from clbench.core.errors import ClbenchError

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

MOST: Final = 4
"""Times its directions that the rank of a weight's update may be.

More than there are change nothing but the scale, which small models may be tried with; far more
only fill the memory.
"""


def attach(
    model: CLIP, layers: Iterable[tuple[str, nn.Linear]], rank: int, scale: float, **options: Any
) -> dict[str, LowRankLinear]:
    """Wrap layers of a model, named as `CLIP.attention_linears` names them.

    Args:
        model: the model that holds the layers.
        layers: dotted names and layers.
        rank: see `LowRankLinear`.
        scale: see `LowRankLinear`.
        **options: keyword arguments of `LowRankLinear`.

    Returns:
        The wrapped layers by name, in the order given.

    Raises:
        ClbenchError: the rank is more than `MOST` times what a weight can have.
    """
    adapters = {}
    for name, layer in layers:
        most = MOST * min(layer.in_features, layer.out_features)
        if rank > most:
            raise ClbenchError(
                f"rank {rank} is far above the {most // MOST} directions that {name} of "
                f"{model.name} has: lower method.rank (to {most // MOST} or less)"
            )
        adapters[name] = LowRankLinear(layer, rank, scale, **options)
        model.replace(name, adapters[name])
    return adapters


def detach(model: nn.Module) -> None:
    """Merge every update of a model and put the plain layers back."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRankLinear | SingularLinear):
                child.merge()
                setattr(parent, name, child.base)
