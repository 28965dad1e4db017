"""The committed results of the embedded benchmark are complete, current and as described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import clbench
from clbench import config, registry
from clbench.core.results.result import RunResult
from clbench.report.embed import embedded
from clbench.report.write import write_report

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "reports/mini"
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, int], RunResult]:
    loaded = [clbench.load_result(path) for path in sorted((REPORT / "results").glob("*.json"))]
    return {(result.method.name, result.seed): result for result in loaded}


def mean(results: dict[tuple[str, int], RunResult], method: str, metric: str) -> float:
    """A metric in percent, averaged over the seeds."""
    values = [results[method, seed].summary[metric] for seed in SEEDS]
    return 100 * float(np.mean([value for value in values if value is not None]))


def test_every_method_is_there_with_every_seed(results: dict[tuple[str, int], RunResult]) -> None:
    assert set(results) == {(name, seed) for name in registry.method_names() for seed in SEEDS}
    assert {result.status for result in results.values()} == {"complete"}


def test_the_recipes_are_those_that_were_run(results: dict[tuple[str, int], RunResult]) -> None:
    for (method, seed), result in results.items():
        settings, _ = config.resolve(method, "mini", overrides={"seed": seed})
        assert settings.fingerprint() == result.config_hash, f"{method}: run `make compare` again"


@pytest.mark.parametrize("folder", ["", "tuning"])
def test_the_tables_follow_from_the_results(tmp_path: Path, folder: str) -> None:
    committed = REPORT / folder
    loaded = [clbench.load_result(path) for path in sorted((committed / "results").glob("*.json"))]
    written = write_report(loaded, tmp_path)
    texts = [path for path in written if path.suffix in {".md", ".csv", ".tex"}]
    assert texts
    for path in texts:
        original = committed / path.relative_to(tmp_path)
        assert original.read_text() == path.read_text(), f"{original}: run `make report`"


@pytest.mark.parametrize("page", ["README.md", "reports/mini/README.md"])
def test_pages_hold_the_current_tables(page: str) -> None:
    text = (ROOT / page).read_text()
    assert "<!-- table:" in text
    assert text == embedded(ROOT / page)


def test_the_benchmark_is_one_on_which_clip_forgets(
    results: dict[tuple[str, int], RunResult],
) -> None:
    benchmark = registry.benchmark("mini").load_builder()(name="mini", image_size=32)
    zero_shot = results["zeroshot", 0].matrix.values[0]
    chances = [1 / len(task.classes.names) for task in benchmark.benchmark.tasks]
    assert 0.35 <= zero_shot.mean() <= 0.65
    assert (zero_shot > np.array(chances)).all()
    assert mean(results, "zeroshot", "transfer") - mean(results, "finetune", "transfer") >= 5
    assert mean(results, "finetune", "forgetting") >= 10
    learned = [np.diag(results["finetune", seed].matrix.values[1:]).mean() for seed in SEEDS]
    assert np.mean(learned) >= zero_shot.mean() + 0.2


def test_the_findings_are_in_the_results(results: dict[tuple[str, int], RunResult]) -> None:
    last = {method: mean(results, method, "last") for method in registry.method_names()}
    assert last["gnsp"] > last["nusa"] > max(last[m] for m in ("zeroshot", "finetune", "lora"))
    forgetting = {method: mean(results, method, "forgetting") for method in last}
    assert forgetting["lora"] < forgetting["nusa"] < forgetting["finetune"] / 4
    transfer = {method: mean(results, method, "transfer") for method in last}
    assert 3 < transfer["zeroshot"] - transfer["nusa"] < 5
