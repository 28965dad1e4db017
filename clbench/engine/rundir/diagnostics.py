"""What is measured about a model besides its accuracy; no part of the costs of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from clbench.clip.model import CLIP, Encoder
from clbench.clip.subspaces.effective_rank import ENERGY, effective_rank
from clbench.core.results.result import EffectiveRankRecord, Numbers, ProbeRecord

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


class ProbeHistory:
    """What probes found at every row.

    Args:
        tasks: number of tasks of the sequence.
    """

    def __init__(self, tasks: int) -> None:
        self._rows = tasks + 1
        self._records: dict[str, ProbeRecord] = {}

    def note(
        self,
        learned: int,
        probe: str,
        values: Mapping[str, float | None],
        seconds: float,
        data: Mapping[str, str],
    ) -> None:
        """Keep what a probe found after `learned` tasks.

        Args:
            learned: number of tasks.
            probe: its name.
            values: name to number.
            seconds: that it took.
            data: hashes of what it looked at.
        """
        empty = ProbeRecord(values={}, seconds=(None,) * self._rows)
        before = self._records.get(probe, empty)

        def noted(row: Numbers, value: float | None) -> Numbers:
            return (*row[:learned], value, *row[learned + 1 :])

        rows = {**dict.fromkeys(values, empty.seconds), **before.values}
        self._records[probe] = ProbeRecord(
            values={key: noted(row, values.get(key)) for key, row in rows.items()},
            seconds=noted(before.seconds, round(seconds, 3)),
            data={**before.data, **data},
        )

    def load(self, records: Mapping[str, ProbeRecord], learned: int) -> None:
        """Go on from an interrupted run, with the rows after up to `learned` tasks."""

        def known(row: Numbers) -> Numbers:
            return (*row[: learned + 1], *(None for _ in row[learned + 1 :]))

        self._records = {
            name: ProbeRecord(
                values={key: known(row) for key, row in record.values.items()},
                seconds=known(record.seconds),
                data=record.data,
            )
            for name, record in records.items()
        }

    def records(self) -> dict[str, ProbeRecord]:
        """What was found so far, by probe."""
        return dict(self._records)
