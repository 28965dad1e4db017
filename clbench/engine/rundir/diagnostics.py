"""What is measured about a model besides its accuracy; no part of the costs of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from clbench.clip.model import CLIP, Encoder
from clbench.clip.subspaces.effective_rank import ENERGY, effective_rank
from clbench.core.results.result import EffectiveRankRecord

_DECIMALS = 6
"""As exact as a mean over hundreds of weights needs, and short in files."""


class RankHistory:
    """Effective rank of both encoders, before training and after every task.

    Args:
        tasks: number of tasks of the sequence.
    """

    def __init__(self, tasks: int) -> None:
        self._values: dict[Encoder, list[float | None]] = {
            encoder: [None] * (tasks + 1) for encoder in get_args(Encoder)
        }

    def measure(self, learned: int, model: CLIP) -> None:
        """Measure the model after `learned` tasks."""
        for encoder, row in self._values.items():
            rank = effective_rank(model, encoder)
            row[learned] = None if rank is None else round(rank, _DECIMALS)

    def state(self) -> dict[str, list[float | None]]:
        """What was measured, as JSON values."""
        return {encoder: list(row) for encoder, row in self._values.items()}

    def load_state(self, state: Mapping[str, list[float | None]]) -> None:
        """Go on from an interrupted run."""
        for encoder, row in self._values.items():
            row[:] = state[encoder]

    def record(self) -> EffectiveRankRecord | None:
        """What was measured; None if no task changed the model."""
        if not any(value is not None for row in self._values.values() for value in row[1:]):
            return None
        values: dict[str, tuple[float | None, ...]] = {
            encoder: tuple(row) for encoder, row in sorted(self._values.items())
        }
        return EffectiveRankRecord(energy=ENERGY, values=values)
