"""The quickstart notebook runs from top to bottom."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]


def test_the_code_of_all_cells_runs_and_shows_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(NOTEBOOK.parent)
    namespace: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for cell in CELLS:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell["id"], "exec"), namespace)
        if isinstance(last, ast.Expr):
            shown[cell["id"]] = eval(
                compile(ast.Expression(last.value), cell["id"], "eval"), namespace
            )
    assert "<table" in shown["run-code"]._repr_html_()
    assert "result.json" in shown["run-path"]
    published = {
        (r["method"]["name"], r["seed"]): r["summary"]["transfer"]
        for r in (json.loads(f.read_text()) for f in (ROOT / "reports/mini/results").glob("*.json"))
    }
    assert shown["pivot-code"].shape == (11, len({method for method, _ in published}))
    transfer = namespace["transfer"]
    for (method, seed), value in published.items():
        assert transfer.loc[method, seed] == pytest.approx(value)
    assert shown["plot"]._repr_png_().startswith(b"\x89PNG")
    assert "open_clip_model.safetensors" in shown["export"]


def test_the_notebook_is_kept_with_its_output() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {kind for cell in code for output in cell["outputs"] for kind in output.get("data", ())}
    assert {"text/html", "image/png", "text/plain"} <= kinds
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if "ename" in output]
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings, paths"


@pytest.mark.slow
def test_jupyter_executes_the_notebook() -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
