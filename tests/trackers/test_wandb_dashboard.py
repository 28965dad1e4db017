"""The comparison that is saved at W&B."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from clbench.core.errors import ClbenchError
from clbench.trackers import wandb_dashboard as dashboard
from clbench.trackers.wandb import State, describe_run, summary_fields
from clbench.trackers.wandb_dashboard import COSTS, TrackedRun, find_tracked_runs, publish_dashboard
from tests.made_up import TASKS, MakeResult

pytest.importorskip("wandb_workspaces")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def runs(make_result: MakeResult) -> list[TrackedRun]:
    """Two methods, one with two seeds, and a smoke run."""
    results = [
        make_result("nusa", 0),
        make_result("nusa", 1),
        make_result("lora", 0, config_hash="ffff0000"),
        make_result("lora", 1, config_hash="ffff0000", status="quick"),
    ]
    return [TrackedRun(f"id{i}", result) for i, result in enumerate(results)]


def sent(runs: list[TrackedRun], out: Path) -> Any:
    """The specification that is written offline."""
    text = publish_dashboard(runs, "clip", "team", out)
    assert text == f"W&B is offline (WANDB_MODE=offline): what would be sent is in {out}"
    return json.loads(out.read_text())


def parts(content: Any) -> dict[str, dict[str, Any]]:
    """Panel grids by the headings above them."""
    found: dict[str, dict[str, Any]] = {}
    part = section = ""
    for block in content["spec"]["blocks"]:
        text = block["children"][0]["text"]
        if block["type"] == "heading" and block["level"] == 1:
            part = text
        elif block["type"] == "heading":
            section = text
        elif block["type"] == "panel-grid":
            found.setdefault(part, {})[section] = block["metadata"]
    return found


def panels(grid: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = grid["panelBankSectionConfig"]["panels"]
    return found


def test_the_report_shows_metrics_curves_matrices_and_costs(
    runs: list[TrackedRun], tmp_path: Path
) -> None:
    content = sent(runs, tmp_path / "spec.json")
    assert (content["entityName"], content["projectName"]) == ("team", "clip")
    sections = next(iter(parts(content).values()))
    bars = panels(sections["Metrics per method"])
    assert [bar["config"]["metrics"] for bar in bars][:3] == [["transfer"], ["average"], ["last"]]
    curves = panels(sections["Accuracy over the tasks"])
    assert [c["config"]["metrics"] for c in curves] == [[f"accuracy/{task}"] for task in TASKS]
    assert {curve["config"]["xAxis"] for curve in curves} == {"task"}
    (matrices,) = panels(sections["Accuracy matrices"])
    assert matrices["config"]["mediaKeys"] == ["matrix/image"]
    costs = panels(sections["Cost"])
    assert [cost["config"]["metrics"] for cost in costs] == [[key] for key in COSTS]
    assert {p["config"]["groupBy"] for p in [*bars, *curves, *costs]} == {"method.value"}


def test_panels_show_what_runs_log(runs: list[TrackedRun], tmp_path: Path) -> None:
    result = runs[0].result
    logged = {*summary_fields(result), *(f"accuracy/{task}" for task in TASKS)}
    for section in parts(sent(runs, tmp_path / "spec.json")).values():
        for grid in section.values():
            for panel in panels(grid):
                assert set(panel["config"].get("metrics", ())) <= logged
    assert {"method", "variant"} <= describe_run(result)["config"].keys()


def test_runs_that_may_not_be_compared_are_parted(runs: list[TrackedRun], tmp_path: Path) -> None:
    found = parts(sent(runs, tmp_path / "spec.json"))
    ids = [
        [grid["runSets"][0]["filters"]["filters"][0]["value"] for grid in sections.values()]
        for sections in found.values()
    ]
    assert [[sorted(values) for values in part] for part in ids] == [
        [["id0", "id1", "id2"]] * 4,
        [["id3"]] * 4,
    ]
    smoke = list(found)[1]
    assert "quick" in smoke or "smoke" in smoke


def test_several_settings_of_a_method_are_not_averaged(
    make_result: MakeResult, tmp_path: Path
) -> None:
    results = [
        make_result("lora", 0, params={"rank": 4}, config_hash="aaaa0000"),
        make_result("lora", 0, params={"rank": 8}, config_hash="bbbb0000"),
    ]
    runs = [TrackedRun(f"id{i}", result) for i, result in enumerate(results)]
    (sections,) = parts(sent(runs, tmp_path / "spec.json")).values()
    grouping = {p["config"]["groupBy"] for p in panels(sections["Metrics per method"])}
    assert grouping == {"variant.value"}


def test_panels_do_not_overlap(runs: list[TrackedRun], tmp_path: Path) -> None:
    for section in parts(sent(runs, tmp_path / "spec.json")).values():
        for grid in section.values():
            boxes = [panel["layout"] for panel in panels(grid)]
            corners = {(box["x"], box["y"]) for box in boxes}
            assert len(corners) == len(boxes)
            assert all(box["x"] + box["w"] <= 24 for box in boxes)


def test_without_runs_all_of_the_project_are_shown(tmp_path: Path) -> None:
    (sections,) = parts(sent([], tmp_path / "spec.json")).values()
    assert sections["Cost"]["runSets"][0]["filters"]["filters"] == []
    (curve,) = panels(sections["Accuracy over the tasks"])
    assert curve["config"]["metricRegex"] == "accuracy/.*"


def test_runs_are_found_by_what_the_tracker_left(make_result: MakeResult, tmp_path: Path) -> None:
    for name, id_ in (("a", "11111111"), ("b", "22222222"), ("c", None)):
        (tmp_path / name).mkdir()
        make_result("lora").save(tmp_path / name / "result.json")
        if id_ is not None:
            State(id_).save(tmp_path / name)
    found = find_tracked_runs([tmp_path, tmp_path / "a"])
    assert [run.id for run in found] == ["11111111", "22222222"]
    with pytest.raises(ClbenchError, match="--logger wandb"):
        find_tracked_runs([tmp_path / "c"])
    with pytest.raises(ClbenchError, match="does not exist"):
        find_tracked_runs([tmp_path / "d"])


def test_without_a_key_the_specification_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import wandb

    def api() -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "Api", api)
    text = publish_dashboard([], "clip", "team", tmp_path / "spec.json")
    assert "No API key configured." in text
    assert (tmp_path / "spec.json").exists()


def test_a_report_that_is_refused_is_a_mistake_and_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def build(*args: Any, linked: bool = False) -> Any:
        if linked:
            raise ValueError("project 'team/clip'\nnot found")
        return original(*args)

    original = dashboard.build_dashboard
    monkeypatch.setattr(dashboard, "_offline_reason", lambda: None)
    monkeypatch.setattr(dashboard, "build_dashboard", build)
    with pytest.raises(ClbenchError, match=r"'team/clip' not found.*--project.*spec\.json"):
        publish_dashboard([], "clip", "team", tmp_path / "spec.json")
    assert (tmp_path / "spec.json").exists()


def test_a_saved_report_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Report:
        url = "https://wandb.ai/team/clip/reports/1"

        def save(self) -> Report:
            return self

    monkeypatch.setattr(dashboard, "_offline_reason", lambda: None)
    monkeypatch.setattr(dashboard, "build_dashboard", lambda *args, linked: Report())
    text = publish_dashboard([], "clip", "team", tmp_path / "spec.json")
    assert text == "dashboard: https://wandb.ai/team/clip/reports/1"
    assert not (tmp_path / "spec.json").exists()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports", None)
    with pytest.raises(ClbenchError, match=r"pip install 'clbench\[dashboard\]'"):
        publish_dashboard([], "clip", "team", tmp_path / "spec.json")
