"""Probes look at every row, and a run is the same with and without them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clbench import registry
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.probe import Look, Probe, ProbeData
from clbench.core.results.manifest import check_manifest
from clbench.core.results.result import RunResult
from clbench.datamodules.sequence import TaskSequence
from clbench.engine.probing import Probes
from clbench.engine.process.progress import QuietReporter, Reporter
from clbench.methods.finetune import Finetune
from clbench.methods.nusa import NuSA
from clbench.methods.zeroshot import ZeroShot

Run = Callable[..., RunResult]


class Restless(Probe):
    """Draws from every generator, encodes texts, and counts what it is shown."""

    name = "restless"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, look: Look) -> None:
        self.calls.append(f"start {look.learned}")

    def before_task(self, look: Look) -> None:
        self.calls.append(f"before {look.learned}")

    def measure(self, look: Look) -> Mapping[str, float | None]:
        self.calls.append(f"measure {look.learned}")
        for task in look.benchmark.tasks:
            look.class_features(task.classes)
        assert not look.model.training
        assert not torch.is_grad_enabled()
        look.model.train()
        drawn = random.random() + float(np.random.rand()) + float(torch.rand(()))  # noqa: NPY002
        return {"drawn": drawn, "row": look.learned, "nothing": float("nan")}


class Careless(Probe):
    """Changes a weight."""

    name = "careless"

    def measure(self, look: Look) -> Mapping[str, float | None]:
        look.model.network.visual.proj.data.mul_(1.001)
        return {}


class Failing(Probe):
    """Fails after the first task."""

    name = "failing"

    def measure(self, look: Look) -> Mapping[str, float | None]:
        if look.learned == 1:
            raise ValueError("no such thing")
        return {"one": 1.0}


class Notes(QuietReporter):
    """Remembers what the user is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


class Interrupt(QuietReporter):
    """Presses Ctrl-C where a task is tested, or at a step of its training."""

    def __init__(self, *, test: int = -1, step: int = -1) -> None:
        self.tests, self.steps = test, step

    def testing(self, images: int) -> None:
        self.tests -= 1
        if self.tests == -1:
            raise KeyboardInterrupt

    def stepped(self) -> None:
        self.steps -= 1
        if self.steps == -1:
            raise KeyboardInterrupt


def all_probes() -> Probes:
    """Every probe that needs no further data, and a restless one."""
    own = [registry.probe(name)() for name in registry.probe_names()]
    chosen = [*(probe for probe in own if not probe.needs), Restless()]
    return Probes({probe.name: probe for probe in chosen}, ProbeData())


def only(*probes: Probe) -> Probes:
    return Probes({probe.name: probe for probe in probes})


def files_of(runs: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The last checkpoint and the losses of the only run."""
    (checkpoint,) = runs.rglob("*.safetensors")
    (losses,) = [path.read_text() for path in runs.rglob("metrics.jsonl")] or [""]
    return load_file(checkpoint), losses


@pytest.mark.parametrize(
    "name", ["gnsp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("nusa", "diki", "icarl"))]
)
def test_a_run_has_the_same_bits_with_all_probes(run: Run, tmp_path: Path, name: str) -> None:
    small: dict[str, dict[str, Any]] = {
        "nusa": {"rank": 8},
        "gnsp": {"reference_count": 12, "reference_batch": 6},
        "icarl": {"capacity": 12, "reference_batch": 6},
    }
    found = []
    for folder, probes in (("without", None), ("with", all_probes())):
        method = registry.method(name)(**small.get(name, {}))
        result = run(method, runs_dir=tmp_path / folder, probes=probes, steps=3)
        found.append((result, *files_of(tmp_path / folder)))
    (plain, weights, losses), (probed, probed_weights, probed_losses) = found
    assert plain.probes == {}
    assert set(probed.probes) >= {"gap", "calibration", "restless"}
    np.testing.assert_array_equal(plain.matrix.values, probed.matrix.values)
    assert losses == probed_losses
    assert weights.keys() == probed_weights.keys()
    for key, tensor in weights.items():
        assert torch.equal(tensor, probed_weights[key]), key


def test_probes_see_every_row_and_every_task(run: Run) -> None:
    probe = Restless()
    result = run(Finetune(), probes=only(probe))
    expected = ["start 0", "measure 0"]
    for t in range(3):
        expected += [f"before {t}", f"measure {t + 1}"]
    assert probe.calls == expected
    record = result.probes["restless"]
    assert record.values["row"] == (0, 1, 2, 3)
    assert record.values["nothing"] == (None,) * 4
    assert all(seconds is not None for seconds in record.seconds)


def test_what_was_found_is_read_back_and_lies_under_the_manifest(run: Run, tmp_path: Path) -> None:
    result = run(ZeroShot(), probes=only(Restless()))
    (file,) = tmp_path.rglob("result.json")
    loaded = RunResult.load(file)
    assert loaded.probes == result.probes
    assert loaded == result
    (finding,) = check_manifest(file.parent, loaded)
    assert finding.sound


def test_a_probe_that_changes_the_model_ends_the_run(run: Run) -> None:
    with pytest.raises(ClbenchError, match="probe 'careless' changed the model"):
        run(ZeroShot(), probes=only(Careless()))


def test_a_probe_that_fails_is_dropped_and_its_rows_stay(run: Run, tmp_path: Path) -> None:
    notes = Notes()
    result = run(ZeroShot(), probes=only(Failing(), Restless()), reporter=notes)
    assert result.status == "complete"
    assert result.probes["failing"].values == {"one": (1.0, None, None, None)}
    assert result.probes["restless"].values["row"] == (0, 1, 2, 3)
    (line,) = notes.lines
    assert "probe 'failing' failed and was dropped" in line
    assert "no such thing" in line
    (log,) = tmp_path.rglob("log.txt")
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("name", "reporter"),
    [
        # a task is learned and its row not yet measured
        pytest.param("nusa", Interrupt(test=2), marks=pytest.mark.slow),
        pytest.param("nusa", Interrupt(test=1), marks=pytest.mark.slow),  # the same of the first
        ("nusa", Interrupt(step=2)),  # in the middle of the second task
        ("gnsp", Interrupt(test=2)),
    ],
)
def test_a_run_that_goes_on_finds_what_an_uninterrupted_one_finds(
    run: Run,
    make_sequence: Callable[..., TaskSequence],
    tmp_path: Path,
    name: str,
    reporter: Interrupt,
) -> None:
    options = {} if name == "nusa" else {"reference_count": 12, "reference_batch": 6}

    def method() -> Method:
        return registry.method(name)(**options)

    def probes() -> Probes:
        found = dict(all_probes().chosen)
        del found["restless"]
        return Probes(found)

    def start(folder: str, reporter: Reporter | None = None) -> RunResult:
        return run(
            method(),
            runs_dir=tmp_path / folder,
            probes=probes(),
            reporter=reporter,
            sequence=make_sequence(2),
            steps=2,
        )

    whole = start("whole")
    with pytest.raises(KeyboardInterrupt):
        start("interrupted", reporter)
    resumed = start("interrupted")
    assert resumed.provenance["resumed"]
    for probe, record in whole.probes.items():
        assert resumed.probes[probe].values == record.values, probe


def test_a_probe_asked_for_later_has_the_later_rows(run: Run, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(NuSA(rank=8), reporter=Interrupt(step=8))
    result = run(NuSA(rank=8), probes=only(Restless()))
    assert result.probes["restless"].values["row"] == (None, None, 2, 3)


def test_memory_of_probes_is_not_that_of_the_run(run: Run) -> None:
    class Greedy(Probe):
        name = "greedy"

        def measure(self, look: Look) -> Mapping[str, float | None]:
            return {"most": float(torch.ones(100_000_000).max())}

    lean = run(ZeroShot()).cost.peak_memory_bytes
    greedy = run(ZeroShot(), probes=only(Greedy()), seed=1).cost.peak_memory_bytes
    assert lean is not None
    assert greedy is not None
    assert greedy - lean < 150_000_000
