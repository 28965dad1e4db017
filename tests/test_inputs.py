"""What a run reads, and how."""

import pytest
import torch

from clbench import config, inputs, registry
from clbench.core.errors import ClbenchError
from clbench.core.settings import RunSettings
from tests.small_runs import run_small, write_tasks


@pytest.mark.parametrize(("device", "workers"), [("cpu", 0), ("cuda", 5)])
def test_workers_are_chosen_from_the_machine(monkeypatch, device, workers):
    monkeypatch.setattr(inputs, "choose_device", lambda _: torch.device(device))
    monkeypatch.setattr(inputs.os, "cpu_count", lambda: 6)
    assert inputs.workers(RunSettings()) == workers
    assert inputs.workers(RunSettings(workers=2)) == 2


def test_missing_reference_data_stop_a_run_before_it_begins(tmp_path):
    tasks = write_tasks(tmp_path / "tasks", images=2)
    for method, setting, source in (
        ("gnsp", "method__reference", "imagenet"),
        ("zscl", "method__captions", str(tmp_path / "none.txt")),
    ):
        with pytest.raises(ClbenchError, match=r"method\.reference=imagenet|cannot read the texts"):
            run_small(
                method, tasks, tmp_path / "runs", **{"method__reference": "task", setting: source}
            )
    assert not (tmp_path / "runs").exists()


def test_reference_data_are_looked_for_where_a_method_declares_them():
    asked, hashed = [], []

    class Sequence:
        def reference_stream(self, *arguments):
            asked.append(arguments)

        def reference_hashes(self, *arguments, quiet):
            hashed.append(arguments)
            return {}

    for name in ("finetune", "lwf", "gift", "zscl"):
        settings, _ = config.resolve(name, "mini")
        inputs.require_reference(settings, registry.method(name), Sequence())
    assert asked == [(0, "benchmark", "task", 0), (0, "benchmark", "benchmark", 0)]
    assert hashed == [("benchmark", "task"), ("benchmark", "benchmark")]
