"""What probes measured, in every table, figure and file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from clbench.core.results.result import ProbeRecord, RunResult
from clbench.core.results.tracker import probe_values
from clbench.report.console import render_console
from clbench.report.figures.draw import draw_figure, figure_names
from clbench.report.page.build import page_html
from clbench.report.probed.tables import probe_grid, probe_table
from clbench.report.run_files import publish
from clbench.report.tables.frames import REFERENCE_LABEL
from clbench.report.write import report_files
from clbench.trackers.csv_file import CsvTracker
from tests.made_up import make_result


def gap(end: float, *, detail: bool = True) -> dict[str, ProbeRecord]:
    values: dict[str, tuple[float | None, ...]] = {
        "gap": (0.5, 0.6, 0.7, end),
        "drift": (None, 0.1, 0.2, 0.3),
    }
    if detail:
        values["gap/arrows"] = (0.4, 0.4, 0.4, 0.4)
    return {"gap": ProbeRecord(values=values, seconds=(1.0, 2.0, 3.0, 2.0))}


@pytest.fixture
def results() -> list[RunResult]:
    return [
        make_result("nusa", 0, probes=gap(0.8)),
        make_result("nusa", 1, probes=gap(1.0)),
        make_result("lora", 0, probes=gap(0.9, detail=False)),
        make_result("finetune", 0),
    ]


def test_the_table_has_the_start_and_the_end_of_every_method(results: list[RunResult]) -> None:
    table = probe_table(results, "gap")
    assert list(table.index) == [REFERENCE_LABEL, "lora", "nusa"]
    assert table["gap"].tolist() == pytest.approx([0.5, 0.9, 0.9])
    assert table.loc["nusa", "gap_std"] == pytest.approx(np.std([0.8, 1.0], ddof=1))
    assert table.loc["nusa", "n"] == 2
    assert np.isnan(table.loc[REFERENCE_LABEL, "drift"])
    assert table["seconds"].tolist() == [2.0] * 3
    texts = [cell.text for cell in probe_grid(table).rows[2]]
    assert texts == ["nusa", "2", "0.9 ± 0.14", "0.3 ± 0", "2"]


def test_an_interrupted_run_shows_the_last_row_it_has() -> None:
    record = ProbeRecord(values={"gap": (0.5, 0.6, None, None)}, seconds=(1.0, 1.0, None, None))
    values = [[0.2, 0.3, 0.4], [0.8, 0.4, 0.5], [None] * 3, [None] * 3]
    result = make_result("nusa", 0, values, status="partial", probes={"gap": record})
    assert probe_table([result], "gap").loc["nusa", "gap"] == 0.6


def test_reports_have_a_table_and_a_curve_per_probe(results: list[RunResult]) -> None:
    files = report_files(results)
    assert "| nusa | 2 | 0.9 ± 0.14 | 0.3 ± 0 | 2 |" in " ".join(files["probe-gap.md"].split())
    rows = list(csv.DictReader(files["probe-gap.csv"].splitlines()))
    assert float(rows[2]["gap"]) == pytest.approx(0.9)
    assert "probe-gap" in figure_names(results)
    drawn = draw_figure("probe-gap", results)
    assert drawn is not None
    panels = [ax for ax in drawn.figure.axes if ax.get_title(loc="left") in ("gap", "drift")]
    assert len(panels) == 2
    page = page_html(results)
    assert "Probe gap" in page
    assert "Probe gap over the sequence" in page


def test_runs_without_probes_have_neither() -> None:
    results = [make_result("nusa", 0)]
    assert not any("probe" in name for name in [*report_files(results), *figure_names(results)])


def test_the_terminal_shows_all_measures_at_any_width(results: list[RunResult]) -> None:
    for width in (30, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(render_console(results))
        text = console.export_text()
        assert "Probe gap" in text
        assert "drift" in text
        assert "s per row" in text


def test_a_run_directory_has_every_row(tmp_path: Path) -> None:
    result = make_result("nusa", 0, probes=gap(0.8))
    publish(result, tmp_path)
    assert "| clocks | 0.7 | 0.2 | 3 |" in " ".join((tmp_path / "table.md").read_text().split())
    CsvTracker().begin(result, tmp_path)
    rows = list(csv.DictReader((tmp_path / "probes.csv").read_text().splitlines()))
    assert {"after": "flags", "probe": "gap", "measure": "gap", "value": "0.8"} in rows
    assert {"after": "zero-shot", "probe": "gap", "measure": "gap/arrows", "value": "0.4"} in rows
    assert not any(row["measure"] == "drift" and row["after"] == "zero-shot" for row in rows)


def test_trackers_get_no_details() -> None:
    result = make_result("nusa", 0, probes=gap(0.8))
    assert dict(probe_values(result, 3)) == {"gap/gap": 0.8, "gap/drift": 0.3}
    assert dict(probe_values(result, 0)) == {"gap/gap": 0.5}
