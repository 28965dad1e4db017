"""The trials of all methods: kept, reused, repeated, chosen; with runs that are made up."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from clbench.cli.app import app
from clbench.core.errors import ClbenchError
from clbench.core.results.result import RunResult
from clbench.engine.rundir.sources import source_hash
from clbench.launch import kept
from clbench.launch.cells import Outcome
from clbench.launch.driving import Failure
from clbench.launch.grid import make_cells
from clbench.launch.make import Ended, Made, Wanted
from clbench.launch.plan import Planned
from clbench.tuning import tune
from clbench.tuning.tune import Tuning, Wish
from tests.made_up import make_result

QUIET = Console(quiet=True)


class Runs:
    """Stands in for a grid: makes results up from the learning rate, and counts what is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[str, float, int]] = []
        self.diverges_above = 1.0
        self.broken: set[str] = set()
        self.interrupted_after = 0
        monkeypatch.setattr(tune, "Grid", self._grid)
        monkeypatch.setattr(kept, "require_inputs", lambda *args, **kwargs: None)

    def _grid(self, planned: Sequence[Planned], runs_dir: Path, wanted: Wanted) -> "Runs":
        self._planned, self._runs_dir = planned, runs_dir
        return self

    def make(self, console: Console, *, quiet: bool, ended: Ended) -> Made:
        results, failures = [], []
        for cell, (settings, cls) in make_cells(self._planned, self._runs_dir):
            lr = settings.train.lr
            assert isinstance(lr, float)
            self.made.append((cls.name, lr, settings.seed))
            bad = lr > self.diverges_above
            score = 0.5 if bad else min(1.0, 0.5 + 20 * lr + 0.001 * settings.seed)
            result = self._result(settings, cls, score, "partial" if bad else "quick")
            result.save(cell.path / "result.json")
            if len(self.made) == self.interrupted_after:
                raise KeyboardInterrupt
            if cls.name in self.broken:
                failures.append(Failure(cell, Outcome.FAILED, "killed", (), cell.path))
            elif bad:
                failures.append(Failure(cell, Outcome.DIVERGED, "", ("loss nan",), cell.path))
                ended(settings, Outcome.DIVERGED)
            else:
                results.append(result)
                ended(settings, Outcome.DONE)
        return Made(results, failures)

    @staticmethod
    def _result(settings: Any, cls: Any, score: float, status: str) -> RunResult:
        made = make_result(
            settings.method.name,
            settings.seed,
            [[score] * 3] * 4,
            status=status,
            config_hash=settings.fingerprint(),
        )
        config = settings.model_dump(mode="json")
        method = made.method.model_copy(update={"source": source_hash(cls)})
        return made.model_copy(update={"config": config, "method": method})


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


def tuned(tmp_path: Path, budget: int = 8, **changes: Any) -> dict[str, Any]:
    methods = changes.pop("methods", ("finetune", "lora"))
    wish = Wish("mini", methods, budget, quick=True, **changes)
    Tuning(wish, tmp_path / "runs", tmp_path / "out", Wanted()).make(QUIET)
    content: dict[str, Any] = json.loads((tmp_path / "out/trials.json").read_text())
    return content


def test_every_method_gets_the_budget_and_the_best_are_repeated(runs: Runs, tmp_path: Path) -> None:
    content = tuned(tmp_path, repeated=3)
    for name in ("finetune", "lora"):
        told = content["methods"][name]
        assert len(told["trials"]) == 8
        rates = [trial["values"]["train.lr"] for trial in told["trials"]]
        best = sorted(range(8), key=lambda n: -rates[n])[:3]
        assert {int(n) for n in told["repeated"]} == set(best)
        assert all(scores.keys() == {"0", "1", "2"} for scores in told["repeated"].values())
        assert told["chosen"] == best[0]
        assert told["edges"]["train.lr"] == "no larger value was tried"
        for trial in told["trials"]:
            result = RunResult.load(tmp_path / "out/results" / trial["result"])
            assert result.summary["average"] == trial["score"]
    assert len(runs.made) == 2 * (8 + 3 * 2)


def test_trials_are_made_on_other_images_of_four_tasks_in_another_order(
    runs: Runs, tmp_path: Path
) -> None:
    tuned(tmp_path, 1, methods=("finetune",), repeated=0)
    (file,) = (tmp_path / "out/results").glob("*.json")
    config = RunResult.load(file).config
    assert config["benchmark"]["options"]["rendering"] == "validation"
    assert config["benchmark"]["options"]["order"] == "random-1000"
    assert config["first_tasks"] == 4


def test_what_is_kept_is_not_made_again(runs: Runs, tmp_path: Path) -> None:
    first = tuned(tmp_path)
    made = len(runs.made)
    assert tuned(tmp_path) == first
    assert len(runs.made) == made
    larger = tuned(tmp_path, 12)
    assert larger["methods"]["lora"]["trials"][:8] == first["methods"]["lora"]["trials"]
    assert len(runs.made) > made


def test_an_interrupted_search_keeps_what_is_over(runs: Runs, tmp_path: Path) -> None:
    runs.interrupted_after = 5
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, 4, repeated=0)
    assert len(list((tmp_path / "out/results").glob("*.json"))) == 4
    runs.interrupted_after = 0
    tuned(tmp_path, 4, repeated=0)
    assert len(runs.made) == 5 + 4


def test_a_setting_of_all_methods_comes_before_the_next(runs: Runs, tmp_path: Path) -> None:
    tuned(tmp_path, 3, repeated=0)
    assert [name for name, _, _ in runs.made] == ["finetune", "lora"] * 3


def test_what_another_source_of_the_method_led_to_is_made_again(runs: Runs, tmp_path: Path) -> None:
    tuned(tmp_path, 2, methods=("finetune",), repeated=0)
    (file, _) = sorted((tmp_path / "out/results").glob("*.json"))
    old = RunResult.load(file)
    changed = old.method.model_copy(update={"source": "0" * 16})
    old.model_copy(update={"method": changed}).save(file)
    tuned(tmp_path, 2, methods=("finetune",), repeated=0)
    assert len(runs.made) == 3


def test_a_diverged_trial_counts_is_kept_and_is_not_tried_again(runs: Runs, tmp_path: Path) -> None:
    runs.diverges_above = 2e-3
    content = tuned(tmp_path, methods=("finetune",), repeated=2)
    trials = content["methods"]["finetune"]["trials"]
    lost = [trial for trial in trials if trial["score"] is None]
    assert lost
    assert all(trial["values"]["train.lr"] > 2e-3 for trial in lost)
    assert all((tmp_path / "out/diverged" / trial["result"]).exists() for trial in lost)
    assert trials[content["methods"]["finetune"]["chosen"]]["score"] is not None
    made = len(runs.made)
    tuned(tmp_path, methods=("finetune",), repeated=2)
    assert len(runs.made) == made


def test_a_method_whose_trials_are_missing_stops_and_the_others_go_on(
    runs: Runs, tmp_path: Path
) -> None:
    runs.broken = {"finetune"}
    with pytest.raises(ClbenchError, match="finetune on mini"):
        tuned(tmp_path, 12)
    told = json.loads((tmp_path / "out/trials.json").read_text())["methods"]
    assert told["finetune"]["problem"] == "trials are missing"
    assert len(told["lora"]["trials"]) == 12
    runs.broken = set()
    assert tuned(tmp_path, 12)["methods"]["finetune"]["problem"] == ""


def test_methods_can_be_added_to_a_search_but_its_rule_cannot_be_changed(
    runs: Runs, tmp_path: Path
) -> None:
    tuned(tmp_path, 2, methods=("finetune",), repeated=0)
    both = tuned(tmp_path, 2, methods=("lora",), repeated=0)["methods"]
    assert set(both) == {"finetune", "lora"}
    with pytest.raises(ClbenchError, match="criterion 'average', not 'last'"):
        tuned(tmp_path, 2, criterion="last")
    with pytest.raises(ClbenchError, match="fixed before the first trial"):
        tuned(tmp_path, 2, overrides={"train.steps": 7})


def test_what_is_wrong_is_told_before_the_first_trial(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(ClbenchError, match="unknown criterion 'avg'"):
        tuned(tmp_path, criterion="avg")
    with pytest.raises(ClbenchError, match="did you mean 'lora'"):
        tuned(tmp_path, methods=("finetune", "lorra"))
    with pytest.raises(ClbenchError, match=r"unknown key 'train\.step'"):
        tuned(tmp_path, overrides={"train.step": 7})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/trials.json").write_text("{")
    with pytest.raises(ClbenchError, match="is damaged, not valid JSON"):
        tuned(tmp_path)
    assert runs.made == []


def test_the_command_says_where_the_results_are(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["tune", "--methods", "finetune", "--budget", "2", "--repeated", "0", "--quick"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "begin with tuning/summary.md" in done.output
    assert "Fine-tuning" in (tmp_path / "tuning/summary.md").read_text()
    assert (tmp_path / "tuning/trials.json").exists()


def test_a_dry_run_says_what_would_be_searched(runs: Runs, tmp_path: Path) -> None:
    arguments = ["tune", "--methods", "nusa,rail,zeroshot", "--dry-run", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    for text in ("train.lr", "1e-05 to 0.1 (log)", "method.rank", "16, 32, 64", "nothing"):
        assert text in done.output
    assert "33 trials, and up to 12 repetitions" in done.output
    assert runs.made == []
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_real_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["tune", "--methods", "rail,zeroshot", "--budget", "2", "--repeated", "2"]
    done = CliRunner().invoke(app, [*arguments, "--quick"])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "tuning/trials.json").read_text())["methods"]
    assert [len(told[name]["trials"]) for name in ("rail", "zeroshot")] == [2, 1]
    assert len(told["rail"]["repeated"]) == 2
