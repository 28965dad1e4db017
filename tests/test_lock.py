"""The lock file of published reports: what it covers, and that it notices changes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from clbench.core.errors import ClbenchError
from clbench.core.files import file_hash
from clbench.core.results.result import RunResult
from clbench.lock import NAME, SHOWN, lock, main
from clbench.naming import titled
from clbench.report.write import write_report
from tests.made_up import VALUES, MakeResult

ROOT = Path(__file__).parent.parent
REPORTS = ROOT / "reports"


def hashes(text: str) -> dict[str, str]:
    """Path to hash."""
    return {path: digest for digest, path in (line.split("  ") for line in text.splitlines())}


def test_the_committed_lock_file_is_up_to_date() -> None:
    committed, now = hashes((REPORTS / NAME).read_text()), hashes(lock(REPORTS))
    changed = [
        path for path in committed.keys() | now.keys() if committed.get(path) != now.get(path)
    ]
    assert not changed, "run `make report`"


def test_committed_files_are_those_of_the_lock_file() -> None:
    locked = hashes((REPORTS / NAME).read_text())
    for pattern in ("*.json", "*.bits"):
        files = {
            file.relative_to(REPORTS).as_posix() for file in REPORTS.rglob(f"results/{pattern}")
        }
        if pattern == "*.json":
            measured = REPORTS.glob("studies/*/measured.json")
            files |= {file.relative_to(REPORTS).as_posix() for file in measured}
        assert files == {path for path in locked if path.endswith(pattern[1:])}
    shown = [file for name in SHOWN for file in REPORTS.glob(f"*/{name}")]
    assert shown
    for file in (*shown, REPORTS / "tuning/summary.md"):
        assert locked[file.relative_to(REPORTS).as_posix()] == file_hash(file)


@pytest.fixture
def reports(tmp_path: Path, make_result: MakeResult) -> Path:
    folder = tmp_path / "reports"
    for seed in (0, 1):
        make_result(seed=seed).save(folder / f"toy/results/nusa-seed{seed}.json")
    return folder


def test_all_results_and_tables_are_locked(reports: Path, tmp_path: Path) -> None:
    locked = hashes(lock(reports))
    results = sorted((reports / "toy/results").iterdir())
    tables = write_report(titled(map(RunResult.load, results)), tmp_path / "toy")
    expected = {f"toy/results/{file.name}": file_hash(file) for file in results}
    expected |= {file.relative_to(tmp_path).as_posix(): file_hash(file) for file in tables}
    assert locked == expected
    assert any(path.startswith("toy/matrices/") for path in locked)


def test_what_pages_show_besides_is_hashed_as_it_is(reports: Path) -> None:
    table = reports / "toy/ranks.md"
    table.write_text("ranks")
    assert hashes(lock(reports))["toy/ranks.md"] == file_hash(table)


def test_another_result_changes_its_line_and_those_of_its_tables(
    reports: Path, make_result: MakeResult
) -> None:
    before = hashes(lock(reports))
    file = reports / "toy/results/nusa-seed1.json"
    make_result(seed=1, values=[[0.5, 0.2, 0.3], *VALUES[1:]]).save(file)
    after = hashes(lock(reports))
    changed = {path for path in before if before[path] != after[path]}
    assert {"toy/results/nusa-seed1.json", "toy/summary.md", "toy/summary.csv"} <= changed
    assert "toy/results/nusa-seed0.json" not in changed
    (reports / "toy/results/nusa-seed1.json").unlink()
    assert "toy/results/nusa-seed1.json" not in hashes(lock(reports))


def test_a_study_is_locked_by_its_results_and_measurements(
    tmp_path: Path, make_result: MakeResult
) -> None:
    folder = tmp_path / "reports/studies/toy"
    make_result().save(folder / "results/nusa-seed0.json")
    (folder / "measured.json").write_text("{}")
    found = hashes(lock(tmp_path / "reports"))
    assert set(found) == {"studies/toy/results/nusa-seed0.json", "studies/toy/measured.json"}


def test_an_edited_result_is_not_locked(reports: Path) -> None:
    file = reports / "toy/results/nusa-seed1.json"
    text = file.read_text()
    file.write_text(text.replace('"seed": 1', '"seed": 2'))
    assert file.read_text() != text
    with pytest.raises(ClbenchError, match="nusa-seed1"):
        lock(reports)


def test_the_command_writes_what_sha256sum_reads(
    reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["lock", str(reports)])
    main()
    lines = (reports / NAME).read_text().splitlines()
    assert lines == lock(reports).splitlines()
    assert all(len(line.split("  ")[0]) == 64 for line in lines)
    shutil.rmtree(reports / "toy")
    with pytest.raises(SystemExit, match="no results in"):
        main()
