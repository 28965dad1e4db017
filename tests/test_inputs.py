"""What a run reads, and how."""

import pytest
import torch

from clbench import inputs
from clbench.core.settings import RunSettings


@pytest.mark.parametrize(("device", "workers"), [("cpu", 0), ("cuda", 5)])
def test_workers_are_chosen_from_the_machine(monkeypatch, device, workers):
    monkeypatch.setattr(inputs, "choose_device", lambda _: torch.device(device))
    monkeypatch.setattr(inputs.os, "cpu_count", lambda: 6)
    assert inputs.workers(RunSettings()) == workers
    assert inputs.workers(RunSettings(workers=2)) == 2
