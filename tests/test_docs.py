"""What the guides show works as shown."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clbench.clip.model import CLIP
from clbench.core.data import Batch
from clbench.core.method import Method
from clbench.core.settings import TrainSettings
from clbench.core.training import TrainingPlan, trained_parameters
from clbench.testing import check_method

ROOT = Path(__file__).parent.parent
GUIDES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PAGES = sorted([*GUIDES, *(ROOT / "reports").rglob("README.md")])


GUIDE = ROOT / "docs/adding_a_method.md"
SHOWN = re.findall(
    r"<!-- code: (\S+) -->\n\n```python\n(.*?)```\n\n<!-- end of code -->",
    GUIDE.read_text(),
    re.DOTALL,
)
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("file", "code"), SHOWN, ids=[Path(file).stem for file, _ in SHOWN])
def test_the_methods_of_the_guide_are_those_of_the_example_package(file: str, code: str) -> None:
    assert (GUIDE.parent / file).read_text() == code, f"copy {file} into {GUIDE.name}"


def test_the_guide_shows_methods() -> None:
    assert len(SHOWN) >= 2
    assert len(BLOCKS) > len(SHOWN)
    assert GUIDE.read_text().count("<!-- code:") == len(SHOWN)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_code_of_the_guide_is_python_and_imports_what_there_is(code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


class TwoParts(Method):
    """What the optimizers of the guide are for."""

    name = "two-parts"
    paper = "https://example.org"

    def prepare(self, model: CLIP) -> None:
        super().prepare(model)
        self.head, self.adapters = nn.Linear(2, 3), nn.Linear(3, 2)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}


@pytest.mark.parametrize("code", [code for code in BLOCKS if code.startswith("def optimizer")])
def test_the_optimizers_of_the_guide_work(code: str, tiny_clip: CLIP) -> None:
    namespace: dict[str, Any] = {"torch": torch, "trained_parameters": trained_parameters}
    exec(code, namespace)
    method = TwoParts()
    method.prepare(tiny_clip)
    answer = namespace["optimizer"](method, TrainingPlan(10, 0.1, TrainSettings(warmup=0)))
    optimizer, schedule = answer if isinstance(answer, tuple) else (answer, None)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == 4
    if schedule is None:
        assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.1]
    else:
        assert schedule.total_steps == 10


def test_the_method_of_the_readme_keeps_the_contract() -> None:
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (code,) = [block for block in blocks if "class HeadOnly" in block]
    definition, _, call = code.partition("\n\n\nclbench.run(")
    assert call.startswith("HeadOnly,")
    namespace: dict[str, Any] = {"__name__": "readme"}
    exec(definition, namespace)
    check_method(namespace["HeadOnly"])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    files = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in files if not (page.parent / link).exists()] == []
