"""Published numbers of trained parameters, and the sums that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

BLOCKS: Final = 12
"""Of either encoder of ViT-B/16."""
WIDTHS: Final = {"vision": 768, "text": 512}
FEATURE: Final = 512
MTIL_TASKS: Final = 11
ALEXNET: Final = 43_264
"""Size of the flattened fifth convolution of AlexNet."""


@dataclass(frozen=True)
class Published:
    """A number from a paper, taken apart.

    Attributes:
        millions: as printed.
        parts: what it is the sum of, and how many parameters each has.
        difference: what explains that a task here trains another number.
        params: hyper-parameters that the number belongs to where the recipe has others.
    """

    millions: float
    parts: Mapping[str, int]
    difference: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())


def _in_blocks(per_width: Mapping[str, int]) -> int:
    return BLOCKS * sum(per_width.values())


def _attention(rank: int, weights: int, factors: int) -> int:
    """Factors of low-rank updates of square weights."""
    return _in_blocks({e: weights * factors * rank * width for e, width in WIDTHS.items()})


def _bottleneck(width: int, inner: int) -> int:
    """Two layers with biases."""
    return 2 * width * inner + width + inner


def _gated(rank: int, width: int) -> int:
    """Updates of the four weights of attention and of both of the MLP, with a gate per rank."""
    return 4 * rank * 2 * width + 2 * rank * 5 * width + 6 * rank


PUBLISHED: Final[dict[str, Published]] = {
    "finetune": Published(
        149.6,
        {"all of CLIP but the logit scale": 149_620_736},
        "none",
    ),
    "nusa": Published(
        1.5,
        {"M of 128 x 128, 4 weights, 24 blocks": _in_blocks(dict.fromkeys(WIDTHS, 4 * 128**2))},
        "none; cut, not rounded",
    ),
    "lora": Published(
        15.7,
        {"A and B of rank 128, 4 weights, 24 blocks": _attention(128, 4, 2)},
        "none",
    ),
    "milora": Published(
        15.7,
        {"A and B of rank 128, 4 weights, 24 blocks": _attention(128, 4, 2)},
        "none",
    ),
    "inflora": Published(
        7.8,
        {"B of rank 128, 4 weights, 24 blocks": _attention(128, 4, 1)},
        "the recipe changes keys and values only, half of that; cut, not rounded",
        {"projections": "qkvo"},
    ),
    "moe_adapters": Published(
        59.8,
        {
            "22 experts of width 64 in 24 blocks": 22
            * _in_blocks({e: _bottleneck(width, 64) for e, width in WIDTHS.items()}),
            "11 routers with their noise": MTIL_TASKS
            * _in_blocks({e: 2 * 22 * width for e, width in WIDTHS.items()}),
            "one autoencoder of AlexNet's features, 100 hidden units": _bottleneck(ALEXNET, 100),
        },
        "a task trains the experts that are not frozen and one router; autoencoders are trained "
        f"apart, by default on CLIP's features, {_bottleneck(FEATURE, 16):,} parameters each",
    ),
    "diki": Published(
        1.8,
        {
            "keys and values, 8 of each, 8 blocks of both encoders, 11 tasks": MTIL_TASKS
            * sum(8 * 8 * 2 * width for width in WIDTHS.values())
        },
        "a task trains its own, an eleventh",
    ),
    "lada": Published(
        9.0,
        {"16 units of 512 for 1,100 classes": 1100 * 16 * FEATURE},
        "a task trains the units of its own classes, 8,192 each, and the adapters of the text "
        "encoder (0.79 M), which the published number has no room for",
    ),
    "codyra": Published(
        4.4,
        {
            "A, B and gates of rank 16, 6 weights, 24 blocks": _in_blocks(
                {e: _gated(16, width) for e, width in WIDTHS.items()}
            )
        },
        "none",
    ),
}
