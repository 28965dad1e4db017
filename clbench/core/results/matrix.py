"""The accuracy matrix of a run: what was measured, and the metrics that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike

from clbench.core.results import metrics
from clbench.core.results.metrics import Array
from clbench.core.task import Setting

if TYPE_CHECKING:
    import pandas as pd

ZERO_SHOT: Final = "zero-shot"
"""What the row before training is called."""
SUMMARY_KEYS = (
    "transfer",
    "average",
    "last",
    "learned",
    "forgetting",
    "backward_transfer",
    "forward_transfer",
    "transfer_row_mean",
    "zero_shot",
)
"""The keys of `AccuracyMatrix.summary`, in the order they are written."""


@dataclass(frozen=True, eq=False)
class AccuracyMatrix:
    """Accuracy on every task after every task.

    Attributes:
        tasks: names of the T tasks, in training order.
        values: ``(T + 1, T)`` fractions, read-only. Row t is measured after learning t tasks,
            row 0 before training; NaN is missing, as are in class-incremental runs the tasks
            not yet learned.
        counts: test images of each task; None where unknown (matrices copied from papers).
        setting: the label space at test, which decides what average and last mean.
    """

    tasks: tuple[str, ...]
    values: Array
    counts: tuple[int, ...] | None = None
    setting: Setting = Setting.TASK_GIVEN

    def __post_init__(self) -> None:
        values = metrics.check_values(np.array(self.values, dtype=np.float64))
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if len(self.tasks) != values.shape[1]:
            raise ValueError(f"{len(self.tasks)} task names for {values.shape[1]} columns")
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"task names must be unique: {list(self.tasks)}")
        if np.any((values < 0) | (values > 1)):
            raise ValueError("accuracies are fractions between 0 and 1")
        if self.counts is not None:
            object.__setattr__(self, "counts", tuple(int(c) for c in self.counts))
            if len(self.counts) != len(self.tasks) or min(self.counts) < 1:
                raise ValueError(f"every task needs a count of at least 1, got {self.counts}")

    @classmethod
    def empty(
        cls,
        tasks: Sequence[str],
        counts: Sequence[int] | None = None,
        setting: Setting = Setting.TASK_GIVEN,
    ) -> AccuracyMatrix:
        """A matrix in which nothing has been measured yet.

        >>> AccuracyMatrix.empty(["a", "b"]).with_row(0, [0.5, 0.25]).summary()["zero_shot"]
        0.375
        """
        values = np.full((len(tasks) + 1, len(tasks)), math.nan)
        return cls(tuple(tasks), values, None if counts is None else tuple(counts), setting)

    def with_row(self, learned: int, row: ArrayLike) -> AccuracyMatrix:
        """The matrix with the accuracies measured after `learned` tasks (0 to T) filled in."""
        if not 0 <= learned <= len(self.tasks):
            raise ValueError(f"row {learned} of a matrix with rows 0 to {len(self.tasks)}")
        accuracies = np.asarray(row, dtype=np.float64)
        if accuracies.shape != (len(self.tasks),):
            raise ValueError(f"a row has {len(self.tasks)} accuracies, not {accuracies.shape}")
        values = self.values.copy()
        values[learned] = accuracies
        return replace(self, values=values)

    @property
    def learned(self) -> int:
        """Number of tasks after which every accuracy that the setting defines is known."""
        for t in range(1, len(self.tasks) + 1):
            tested = t if self.setting is Setting.CLASS_INCREMENTAL else len(self.tasks)
            if np.isnan(self.values[t, :tested]).any():
                return t - 1
        return len(self.tasks)

    @property
    def complete(self) -> bool:
        """Whether all tasks have been learned and tested; row 0 may be missing."""
        return self.learned == len(self.tasks)

    def summary(self) -> dict[str, float | None]:
        """All metrics as fractions, under `SUMMARY_KEYS`.

        A metric that the setting does not define, or that needs a cell not yet measured, is
        None. In class- and domain-incremental runs average and last are over images, not over
        tasks (see `metrics.incremental_accuracy`), and need `counts`. Transfer is about classes not
        yet learned: where all tasks have the same classes it does not exist.
        """
        v = self.values
        found = {
            "learned": metrics.learned(v),
            "forgetting": metrics.forgetting(v),
            "backward_transfer": metrics.backward_transfer(v),
        }
        if self.setting.over_images:
            steps = self._incremental()
            found |= {"average": float(steps.mean()), "last": float(steps[-1])}
        else:
            found |= {
                "transfer": metrics.transfer(v),
                "average": metrics.average(v),
                "last": metrics.last(v),
                "transfer_row_mean": metrics.transfer_row_mean(v),
            }
        if self.setting is not Setting.CLASS_INCREMENTAL:
            found |= {
                "forward_transfer": metrics.forward_transfer(v),
                "zero_shot": metrics.zero_shot(v),
            }
        return {key: _none_if_nan(found.get(key, math.nan)) for key in SUMMARY_KEYS}

    def per_task(self) -> dict[str, Array]:
        """The numbers papers print per task, each of shape ``(T,)``, NaN where undefined.

        Returns:
            ``transfer``, ``average`` and ``last``; for class- and domain-incremental runs
            ``incremental`` (accuracy on all tasks seen after each step) and ``last``.
        """
        if self.setting.over_images:
            return {
                "incremental": self._incremental(),
                "last": metrics.last_per_task(self.values),
            }
        return {
            "transfer": metrics.transfer_per_task(self.values),
            "average": metrics.average_per_task(self.values),
            "last": metrics.last_per_task(self.values),
        }

    def to_lists(self) -> list[list[float | None]]:
        """The values as JSON knows them: T + 1 lists of T numbers, None for missing."""
        return [[_none_if_nan(value) for value in row] for row in self.values.tolist()]

    @classmethod
    def from_lists(
        cls,
        tasks: Sequence[str],
        rows: Sequence[Sequence[float | None]],
        counts: Sequence[int] | None = None,
        setting: Setting = Setting.TASK_GIVEN,
    ) -> AccuracyMatrix:
        """Inverse of `to_lists`.

        Raises:
            ValueError: the rows do not form a ``(T + 1, T)`` matrix of fractions.
        """
        if len(rows) != len(tasks) + 1 or any(len(row) != len(tasks) for row in rows):
            widths = ", ".join(map(str, sorted({len(row) for row in rows})))
            raise ValueError(
                f"{len(tasks)} tasks need {len(tasks) + 1} rows of {len(tasks)} accuracies, "
                f"got {len(rows)} rows of {widths}"
            )
        values = np.array([[math.nan if v is None else v for v in row] for row in rows])
        return cls(tuple(tasks), values, None if counts is None else tuple(counts), setting)

    def to_frame(self) -> pd.DataFrame:
        """The values as a data frame of ``(T + 1, T)`` fractions, NaN where missing.

        Returns:
            Index ``after``: ``zero-shot`` and the tasks, in the order learned. Columns ``task``:
            the tasks, in the same order.

        >>> AccuracyMatrix.empty(["a", "b"]).with_row(0, [0.5, 0.25]).to_frame().loc["zero-shot"]
        task
        a    0.50
        b    0.25
        Name: zero-shot, dtype: float64
        """
        import pandas as pd

        index = pd.Index([ZERO_SHOT, *self.tasks], name="after")
        columns = pd.Index(self.tasks, name="task")
        return pd.DataFrame(self.values.copy(), index=index, columns=columns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AccuracyMatrix):
            return NotImplemented
        return (self.tasks, self.counts, self.setting) == (
            other.tasks,
            other.counts,
            other.setting,
        ) and np.array_equal(self.values, other.values, equal_nan=True)

    def _incremental(self) -> Array:
        if self.counts is None:
            return np.full(len(self.tasks), math.nan)
        return metrics.incremental_accuracy(self.values, self.counts)


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
