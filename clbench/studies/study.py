"""What a study is: a question, a grid of runs, and the text of its answer."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from clbench import registry
from clbench.core.errors import ClbenchError, unknown_name
from clbench.launch.grid import AXES, sweep
from clbench.launch.plan import Planned

QUICK_TASKS: Final = 2
"""Tasks of a smoke run."""


class StudyFile(BaseModel):
    """The content of ``experiments/studies/NAME.yaml``.

    Attributes:
        title: heading.
        question: what is asked, in a few sentences.
        runs: the grid, as `clbench sweep` takes it; None where nothing is trained.
        caption: what the figure shows.
        finding: the answer in one line. Numbers stand for themselves nowhere: ``{name}`` is what
            the analysis of the runs calls so.
        answer: what was found, in a paragraph, with numbers in the same way.
        changes: what would change the answer.
        commands: the same on real data, as lines for a terminal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    question: str
    runs: dict[str, Any] | None = None
    caption: str
    finding: str
    answer: str
    changes: str
    commands: str


@dataclass(frozen=True)
class Study:
    """A study by name, with its file and the module that reads its runs."""

    name: str
    file: StudyFile
    module: ModuleType

    def planned(self, overrides: Mapping[str, Any], *, quick: bool = False) -> list[Planned]:
        """The validated settings of all runs.

        Args:
            overrides: settings by dotted key, for every run.
            quick: smoke runs of two tasks, at the ends of every axis only.

        Raises:
            ClbenchError: settings that do not exist or are not valid.
        """
        if self.file.runs is None:
            return []
        tree = thinned(self.file.runs) if quick else self.file.runs
        return sweep(tree, overrides=dict(overrides), quick=quick)


def find_study(name: str) -> Study:
    """A study by name.

    Raises:
        ClbenchError: there is none of this name, or its file is not valid.
    """
    if name not in registry.study_names():
        raise unknown_name("study", name, registry.study_names())
    try:
        file = StudyFile.model_validate(registry.read_recipe("studies", name))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise ClbenchError(f"study {name}: {where}: {problem['msg']}") from None
    module = f"clbench.studies.answers.{name.replace('-', '_')}"
    return Study(name, file, importlib.import_module(module))


def source_digest(*parts: ModuleType | Callable[..., Any]) -> str:
    """Hash of the source of modules and functions, for the `basis` of what they measure."""
    texts = [inspect.getsource(part) for part in parts]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def thinned(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A grid with the ends of every axis, one seed, and the first two tasks.

    >>> thinned({"seeds": "0-4", "grid": {"method.rank": [8, 16, 32]}})
    {'seeds': [0], 'grid': [{'method.rank': [8, 32]}], 'first_tasks': 2}
    """
    small = {key: _ends(value) if key in AXES[:3] else value for key, value in tree.items()}
    grid = tree.get("grid", {})
    blocks = [grid] if isinstance(grid, Mapping) else grid
    small["grid"] = [
        {k: [0] if k == "seeds" else v if k == "methods" else _ends(v) for k, v in b.items()}
        for b in blocks
    ]
    small |= {"seeds": [0], "first_tasks": QUICK_TASKS}
    return small


def _ends(values: Any) -> Any:
    if not isinstance(values, list) or len(values) < 2:
        return values
    return [values[0], values[-1]]
