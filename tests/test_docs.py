"""What the guides show works as shown."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from clbench.core.data import Batch

ROOT = Path(__file__).parent.parent
GUIDES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PAGES = sorted([*GUIDES, *(ROOT / "reports").rglob("README.md")])


def test_the_method_of_the_guide_trains(tiny_clip: Any, tiny_task_data: Any) -> None:
    text = (ROOT / "docs/adding_a_method.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    namespace: dict[str, Any] = {"__name__": "guide"}
    exec(compile(code, "adding_a_method.md", "exec", dont_inherit=True), namespace)
    method = namespace["MyMethod"](strength=2.0)
    task, data = tiny_task_data(0)
    method.prepare(tiny_clip)
    method.begin_task(task, data)
    batch: Batch = next(data.batches(8))
    terms = method.loss(batch)
    assert terms["pull"] == 0
    sum(terms.values()).backward()
    with torch.no_grad():
        for parameter in tiny_clip.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    assert method.loss(batch)["pull"] > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    files = [link for link in links if not link.startswith(("http:", "https:", "mailto:"))]
    assert [link for link in files if not (page.parent / link).exists()] == []
