"""The model card of an exported run: what it is, what was measured, how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clbench.core.foreign.names import escape_markdown
from clbench.core.results.result import RunResult
from clbench.core.task import Setting
from clbench.report.formats.cells import Cell, Grid
from clbench.report.formats.render import to_markdown
from clbench.report.tables.grid import matrix_grid, percent
from clbench.report.tables.groups import comparable_groups

_TITLES = {
    "transfer": "Transfer",
    "average": "Avg",
    "last": "Last",
    "learned": "Learned",
    "forgetting": "Forgetting",
    "zero_shot": "before training",
}
_STATUS = {
    "quick": "This was a smoke run: its numbers mean nothing.",
    "partial": "The run is unfinished: later tasks are not in this model.",
}


@dataclass(frozen=True)
class Loading:
    """How an exported folder is used.

    Attributes:
        library: name on Hugging Face's hub.
        code: lines of Python that load and use it.
        text: what to know beside the code.
    """

    library: str
    code: str
    text: str


def model_card(result: RunResult, loading: Loading, facts: Mapping[str, str]) -> str:
    """The text of ``README.md`` in an exported folder.

    Args:
        result: of the run.
        loading: how the folder is used.
        facts: what else to list, by name.
    """
    (group,) = comparable_groups([result])
    learned, tasks = result.matrix.learned, result.benchmark.tasks
    title = f"{result.method.name} on {result.benchmark.name}, seed {result.seed}"
    parts = [
        _front_matter(loading.library),
        f"# {_text(title)}",
        f"CLIP {_text(f'{result.backbone.model} ({result.backbone.weights})')}, trained on "
        f"{learned} of {len(tasks)} tasks, one after the other, with the continual-learning method "
        f"{_text(result.method.name)} of clbench ({_text(group.title)}).",
        _STATUS.get(result.status, ""),
        "## Use",
        f"```python\n{loading.code.strip()}\n```",
        loading.text,
        "## Result",
        _scores(result),
        to_markdown(matrix_grid(result.matrix.to_frame())),
        "Accuracy in percent: a row per task learned, a column per task tested. "
        f"{_candidates(result.benchmark.setting)} A class's feature is the mean over its prompts.",
        "## Origin",
        to_markdown(_table({**_origin(result), **facts})),
        "`clbench_result.json` beside this page has the whole configuration, versions and hashes.",
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _front_matter(library: str) -> str:
    tags = "".join(f"- {tag}\n" for tag in ("clip", "continual-learning", "clbench"))
    task = "zero-shot-image-classification"
    return f"---\nlibrary_name: {library}\npipeline_tag: {task}\ntags:\n{tags}---"


def _scores(result: RunResult) -> str:
    known = {title: result.summary[key] for key, title in _TITLES.items()}
    shown = [f"{title} {percent(value)}" for title, value in known.items() if value is not None]
    return f"{', '.join(shown)} (percent)." if shown else ""


def _candidates(setting: Setting) -> str:
    return {
        Setting.TASK_GIVEN: "Images are scored among the classes of their own task.",
        Setting.TASK_HIDDEN: "Images are scored among the classes of all tasks.",
        Setting.CLASS_INCREMENTAL: "Images are scored among all classes learned so far.",
        Setting.DOMAIN_INCREMENTAL: "Images are scored among the classes that all tasks have.",
    }[setting]


def _origin(result: RunResult) -> dict[str, str]:
    params = ", ".join(f"{key}={value}" for key, value in result.method.params.items())
    return {
        "method": result.method.name,
        "paper": result.method.paper,
        "hyper-parameters": params,
        "seed": str(result.seed),
        "settings": result.config_hash,
        "weights before training (SHA-256)": result.backbone.fingerprint,
        "clbench": str(result.provenance.get("packages", {}).get("clbench", "")),
    }


def _table(facts: Mapping[str, str]) -> Grid:
    rows = tuple((Cell(key), Cell(value)) for key, value in facts.items() if value)
    return Grid(("", ""), rows, (False, False))


def _text(text: str) -> str:
    """What stands in a result file is text on the page, on one line."""
    return escape_markdown(" ".join(text.split()))
