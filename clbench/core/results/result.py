"""`RunResult`: everything a finished or interrupted run leaves behind, as result.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from clbench.core.errors import ClbenchError
from clbench.core.files import content_hash, write_atomic
from clbench.core.foreign.json_text import load_json
from clbench.core.results.display import display
from clbench.core.results.matrix import AccuracyMatrix
from clbench.core.task import Benchmark, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA: Final = 4
"""Raised whenever a key of result.json changes its meaning, or another is required.

1: the first. 2: ``sha256``, the hash of everything else in the file. 3: the directory of a finished
run has a manifest. 4: the summary has ``learned``; results may hold probes.
"""
READABLE: Final = (1, 2, 3, 4)
SINCE: Final = {"learned": 4}
"""Metrics of the summary that came later, with the first schema of files that hold them."""
HASH: Final = "sha256"
FILE_NAME = "result.json"
RESULTS: Final = "results"
"""Folder of collected results beside the tables that are built from them."""
ASIDE: Final = "aside"
"""Folder, beside run directories, of those that made room for a fresh start."""
LAUNCHED = "CLBENCH_LAUNCH"
"""Variable in which a launcher says, as JSON, who it is and whether runs share the machine."""
SUMMARY_TOLERANCE = 1e-9
"""Sums may be taken in another order by another NumPy."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]
Numbers = tuple[float | None, ...]
"""One number per row of the accuracy matrix."""
Status = Literal["complete", "partial", "quick"]


class _Section(BaseModel):
    """What readers of results expect in a section of a configuration, where it is there."""

    name: str = ""
    options: dict[str, Any] = {}
    params: dict[str, Any] = {}


_LAYOUT: Final[dict[str, dict[str, TypeAdapter[Any]]]] = {
    "config": dict.fromkeys(("benchmark", "method", "backbone", "train"), TypeAdapter(_Section)),
    "provenance": {
        "packages": TypeAdapter(dict[str, Any]),
        "resumed": TypeAdapter(list[str]),
        "threads": TypeAdapter(Annotated[int, Field(ge=1, le=1024)]),
    },
}
"""Parts of the open fields that other code looks into; each may be missing."""


class Record(BaseModel):
    """Base of all parts of a result: immutable, unknown keys and NaN are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )


class BenchmarkRecord(Record):
    """Which task sequence was run; the fields of `Benchmark`, with tasks by name."""

    name: str
    version: int
    setting: Setting
    order: str
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]

    @classmethod
    def of(cls, benchmark: Benchmark) -> BenchmarkRecord:
        """The record of a benchmark."""
        return cls(
            name=benchmark.name,
            version=benchmark.version,
            setting=benchmark.setting,
            order=benchmark.order,
            tasks=tuple(task.name for task in benchmark.tasks),
        )


class MethodRecord(Record):
    """Which method was run, with all its hyper-parameters.

    Attributes:
        decides_by_batch: whether an answer may depend on the other images of its test batch; no key
            in the file if not.
        source: hash of the method's source; none in results of older versions.
    """

    name: str
    params: dict[str, Any] = {}
    needs: tuple[str, ...] = ()
    paper: str = ""
    decides_by_batch: bool = False
    source: str = ""
    _title: str = ""
    _family: str = ""

    @property
    def title(self) -> str:
        """What reports call the method: its name, unless it was `called` something else."""
        return self._title or self.name

    @property
    def family(self) -> str:
        """The group in which reports list the method; empty if it is not known."""
        return self._family

    def called(self, title: str, family: str) -> MethodRecord:
        """The record with a title and a family for reports, which no file holds."""
        record = self.model_copy()
        record._title, record._family = title, family
        return record


class BackboneRecord(Record):
    """Which CLIP was adapted.

    Attributes:
        model: open_clip architecture.
        weights: open_clip tag or file.
        fingerprint: hash of the weights themselves; runs with different ones are not compared.
    """

    model: str
    weights: str
    fingerprint: str


class AccuracyRecord(Record):
    """The accuracy matrix.

    Attributes:
        values: T + 1 rows of T fractions, null where not measured; row 0 is zero-shot.
        counts: test images of each task.
    """

    values: tuple[tuple[Fraction | None, ...], ...]
    counts: tuple[Annotated[int, Field(ge=1)], ...]

    @classmethod
    def of(cls, matrix: AccuracyMatrix) -> AccuracyRecord:
        """The record of a matrix, which must know its counts."""
        if matrix.counts is None:
            raise ValueError("a result needs the number of test images of every task")
        values = tuple(tuple(row) for row in matrix.to_lists())
        return cls(values=values, counts=matrix.counts)


class FootprintRecord(Record):
    """What the method costs besides time; the fields of `clbench.core.method.Footprint`."""

    trainable: Count
    added: Count
    stored: Count
    external: Count


class CostRecord(Record):
    """What the run cost, summed over all tasks.

    Attributes:
        training_seconds: in optimizer steps.
        evaluation_seconds: in tests.
        overhead_seconds: in the method's work around training (`prepare`, `begin_task`,
            `end_task`).
        peak_memory_bytes: None where the device does not say.
        steps: optimizer steps.
    """

    training_seconds: Seconds
    evaluation_seconds: Seconds
    overhead_seconds: Seconds
    peak_memory_bytes: Count | None
    steps: Count


class DataRecord(Record):
    """Which data were used.

    Attributes:
        splits: hash of each split, keyed ``<task>/train`` and ``<task>/test``; it covers which
            images a few-shot split chose. Runs whose test splits differ are not compared. Lists
            that decide the splits and are not clbench's own have an entry ``<task>/<file>``,
            validation images ``<task>/val``.
        prompts: hash of each task's class names and prompts; empty in results of older versions.
        validation: task name to the hash of the training images that a method held out; empty (no
            key in the file) where it held out none.
        reference: where reference images came from; None where the method used none.
        reference_hashes: ``images`` and ``texts`` to the hash of reference data that were read from
            files; empty (no key in the file) where there were none, and in results of older
            versions.
    """

    splits: dict[str, str] = {}
    prompts: dict[str, str] = {}
    validation: dict[str, str] = {}
    reference: str | None = None
    reference_hashes: dict[str, str] = {}


class EffectiveRankRecord(Record):
    """How many directions the attention weights use, before training and after every task.

    Attributes:
        energy: share of a weight's energy that counts as used.
        values: encoder to T + 1 fractions of the full rank, rows as in the accuracy matrix; null
            where not measured.
    """

    energy: Fraction
    values: dict[str, tuple[Fraction | None, ...]]


class ProbeRecord(Record):
    """What a probe found, before training and after every task.

    Attributes:
        values: name to T + 1 numbers, rows as in the accuracy matrix; null where not measured or
            not defined. A name with a slash (``ece/digits``) is a detail of what stands before it.
        seconds: that the probe took for each row.
        data: hash of each set of images or texts that it looked at besides the tasks' own; empty
            (no key in the file) where there were none.
    """

    values: dict[str, Numbers]
    seconds: tuple[Seconds | None, ...]
    data: dict[str, str] = {}

    @property
    def main(self) -> dict[str, Numbers]:
        """The values without details, as tables and figures show them."""
        return {name: row for name, row in self.values.items() if "/" not in name}

    @property
    def first(self) -> dict[str, float | None]:
        """The same before training."""
        return {name: row[0] for name, row in self.main.items()}


class RunResult(Record):
    """One method on one benchmark with one seed.

    Attributes:
        schema_version: ``schema`` in the file.
        status: ``partial`` while tasks are missing, ``quick`` for smoke runs whose numbers
            mean nothing.
        summary: the metrics of `accuracy` as fractions (see `AccuracyMatrix.summary`);
            those that an older file lacks are computed.
        config: the resolved settings; `config_hash` is their fingerprint without the seed.
        provenance: versions, machine and code state; never used in comparisons.
        effective_rank: of the attention weights; None (no key in the file) where the method
            trains nothing, and in results of older versions.
        probes: what was measured besides accuracies, by probe; empty (no key in the file) where
            no probe was asked for, and in results of older versions.
    """

    schema_version: Literal[1, 2, 3, 4] = Field(default=SCHEMA, alias="schema")
    status: Status
    benchmark: BenchmarkRecord
    method: MethodRecord
    backbone: BackboneRecord
    seed: Count
    accuracy: AccuracyRecord
    summary: dict[str, float | None]
    footprint: FootprintRecord
    cost: CostRecord
    config: dict[str, Any]
    config_hash: str
    data: DataRecord = DataRecord()
    provenance: dict[str, Any] = {}
    effective_rank: EffectiveRankRecord | None = None
    probes: dict[str, ProbeRecord] = {}
    _path: Path | None = PrivateAttr(None)

    @property
    def path(self) -> Path | None:
        """The run directory, or the file of a collected result; None before it is written.

        It is no part of the result: two results are equal wherever they lie.
        """
        return self._path

    @field_validator("config", "provenance")
    @classmethod
    def _is_laid_out(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for key, part in _LAYOUT[info.field_name or ""].items():
            if key not in value:
                continue
            try:
                part.validate_python(value[key])
            except ValidationError as error:
                raise ValueError(f"{key}: {_first_problem(error)}") from None
        return value

    @property
    def matrix(self) -> AccuracyMatrix:
        """The accuracy matrix with its task names, counts and setting."""
        return AccuracyMatrix.from_lists(
            self.benchmark.tasks,
            self.accuracy.values,
            self.accuracy.counts,
            self.benchmark.setting,
        )

    @model_validator(mode="after")
    def _is_consistent(self) -> RunResult:
        matrix = self.matrix
        expected = matrix.summary()
        later = {k: v for k, v in expected.items() if k in self._later_keys()}
        if expected.keys() - later.keys() <= self.summary.keys() <= expected.keys():
            found = later | self.summary
            self.summary.clear()
            self.summary.update((key, found[key]) for key in expected)
        else:
            raise ValueError(f"summary needs exactly the keys {', '.join(expected)}")
        for key, value in expected.items():
            stated = self.summary[key]
            agree = stated == value
            if stated is not None and value is not None:
                agree = abs(stated - value) <= SUMMARY_TOLERANCE
            if not agree:
                expected_text = None if value is None else f"{value:.10g}"
                raise ValueError(f"summary.{key} is {stated}, the accuracies give {expected_text}")
        if self.status == "complete" and not matrix.complete:
            known = f"{matrix.learned} of {len(matrix.tasks)}"
            raise ValueError(f"status is complete but the accuracies end after {known} tasks")
        ranks = {} if self.effective_rank is None else self.effective_rank.values
        if any(len(row) != len(matrix.values) for row in ranks.values()):
            raise ValueError("effective_rank needs as many values as the accuracies have rows")
        for name, record in self.probes.items():
            if any(len(r) != len(matrix.values) for r in (record.seconds, *record.values.values())):
                raise ValueError(f"probe {name} needs as many values as the accuracies have rows")
        return self

    @classmethod
    def load(cls, path: Path | str) -> RunResult:
        """Read a result file, or the one in a run directory.

        Raises:
            ClbenchError: the file is missing, not JSON, of another schema or inconsistent.
        """
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        content = _read_json(path)
        if not isinstance(content, dict) or "schema" not in content:
            raise ClbenchError(f"{path} is not a result file: it has no key 'schema'")
        if content["schema"] not in READABLE:
            raise ClbenchError(
                f"{path} has schema {content['schema']!r} but this version of clbench reads "
                f"{', '.join(map(str, READABLE))}: use the version that wrote it"
            )
        stated = content.pop(HASH, None)
        if (stated or content["schema"] > 1) and stated != content_hash(content):
            raise ClbenchError(
                f"{path} is not what clbench wrote: it was edited or damaged; copy it again from "
                "its source"
            )
        try:
            result = cls.model_validate(content)
        except ValidationError as error:
            raise ClbenchError(f"{path}: {_first_problem(error)}") from error
        result._lies_in(path)
        return result

    def save(self, path: Path | str) -> None:
        """Write the result file atomically.

        Raises:
            ClbenchError: the file cannot be written.
        """
        write_atomic(path, self.to_json())
        if self._path is None:
            self._lies_in(Path(path))

    def plot(self, kind: str = "matrices") -> Figure:
        """A figure of this run, as reports draw it.

        Args:
            kind: ``matrices`` (the accuracy matrix), ``sequence``, ``tradeoff``, ``forgetting`` or
                ``effective-rank``.

        Returns:
            A matplotlib figure; the last line of a notebook's cell shows it.

        Raises:
            ClbenchError: there is no such figure, or the run has no numbers for it.
        """
        return display().plot(self, kind)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunResult):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        known = {k: v for k, v in self.summary.items() if k in ("transfer", "average", "last")}
        numbers = ", ".join(f"{k} {100 * v:.1f} %" for k, v in known.items() if v is not None)
        run = f"{self.method.name} on {self.benchmark.name}, seed {self.seed}, {self.status}"
        return f"<RunResult {run}{f': {numbers}' if numbers else ''}>"

    def _repr_html_(self) -> str:
        return display().html(self)

    def _later_keys(self) -> list[str]:
        """Metrics that a file of this schema does not hold."""
        return [key for key, since in SINCE.items() if self.schema_version < since]

    def _lies_in(self, file: Path) -> None:
        self._path = file.parent if file.name == FILE_NAME else file

    def _content(self) -> dict[str, Any]:
        """JSON values, without keys that say nothing or that a file of this schema lacks."""
        content = self.model_dump(mode="json", by_alias=True)
        optional = [
            (content, ("effective_rank", "probes")),
            *((record, ("data",)) for record in content["probes"].values()),
            (content["data"], ("prompts", "validation", "reference_hashes")),
            (content["method"], ("source", "decides_by_batch")),
        ]
        for part, keys in optional:
            for key in keys:
                if not part[key]:
                    del part[key]
        for key in self._later_keys():
            del content["summary"][key]
        return content

    def to_json(self) -> str:
        """The text of the result file: keys in declared order, one line per matrix row."""
        content = self._content()
        if self.schema_version > 1:
            content[HASH] = content_hash(content)
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        # Strings hold no raw line breaks, so only lists of bare numbers can match.
        rows = re.compile(r"\[\n\s+([^\[\]{}\"]*?)\n\s+\]")
        return rows.sub(lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text) + "\n"


def _read_json(path: Path) -> Any:
    try:
        return load_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClbenchError(f"there is no result file {path}") from None
    except OSError as error:
        raise ClbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ClbenchError(
            f"{path} is damaged, not valid JSON: {error}; copy it again, or run again"
        ) from error


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    where = ".".join(str(part) for part in problems[0]["loc"])
    message = problems[0]["msg"].removeprefix("Value error, ")
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return f"{where}: {message}{more}" if where else f"{message}{more}"
