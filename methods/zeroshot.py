"""Zero-shot CLIP: the reference point that costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from torch import Tensor

from clbench.core.data import Batch
from clbench.core.method import Method


@final
class ZeroShot(Method):
    """Classify with the pre-trained CLIP and never train.

    The score of class c is ``s f(x) . g_c``, where ``g_c`` is the normalised mean of the text
    features of the class's prompts. Every later row of the accuracy matrix equals row 0, so
    Transfer and Last are the zero-shot accuracy. Nothing is stored.

    Paper: https://arxiv.org/abs/2103.00020
    """

    name: ClassVar[str] = "zeroshot"
    title: ClassVar[str] = "Zero-shot CLIP"
    family: ClassVar[str] = "Baselines"
    paper: ClassVar[str] = "https://arxiv.org/abs/2103.00020"

    traits: ClassVar[frozenset[str]] = frozenset({"trains-nothing"})

    def __init__(self) -> None:
        super().__init__()

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Nothing to minimise."""
        return {}
