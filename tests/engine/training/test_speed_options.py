"""What only changes speed changes nothing else: reused rows, compiled blocks, kept memory."""

import ctypes
import platform

import pytest
import torch

from clbench import api, inputs
from clbench.core.settings import RunSettings
from clbench.engine.training import allocator, compiling
from clbench.engine.training.allocator import freed_memory_kept
from clbench.engine.training.compiling import compiled
from clbench.engine.training.trainers import make_trainer

QUICK = {"train.steps": 2}


def run(tmp_path, method: str, benchmark: str = "mini", **settings):
    return api.run(
        method, benchmark, runs_dir=tmp_path, settings=QUICK | settings, quick=True, quiet=True
    )


def test_zero_shot_is_tested_once(tmp_path, tested):
    result = run(tmp_path, "zeroshot")
    assert tested == [(0, list(range(11)))]
    assert (result.matrix.values == result.matrix.values[0]).all()


def test_zero_shot_is_not_tested_where_an_earlier_run_has_its_row(tmp_path, tested):
    run(tmp_path, "zeroshot")
    tested.clear()
    run(tmp_path, "zeroshot", seed=1)
    assert tested == []


def test_class_incremental_rows_have_other_candidates_each_time(tmp_path, tested):
    run(tmp_path, "zeroshot", "mini-cil-10step")
    assert tested == [(t, list(range(t))) for t in range(1, 11)]


@pytest.mark.slow
def test_methods_that_train_are_tested_after_every_task(tmp_path, tested):
    run(tmp_path, "lora")
    assert tested == [(learned, list(range(11))) for learned in range(12)]


@pytest.mark.slow
def test_compiled_blocks_give_the_same_features(tiny_clip):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    expected = tiny_clip.encode_image(images)
    with compiled(tiny_clip, True, pytest.fail):
        torch.testing.assert_close(tiny_clip.encode_image(images), expected, atol=1e-5, rtol=0)
        assert all(b._compiled_call_impl for b in tiny_clip.blocks("vision"))
    assert not any(b._compiled_call_impl for b in tiny_clip.blocks("vision"))


def test_where_nothing_compiles_a_note_says_so(tiny_clip, monkeypatch):
    def fail(function):
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(compiling.torch, "compile", fail)
    notes: list[str] = []
    with compiled(tiny_clip, True, notes.append):
        assert not any(block._compiled_call_impl for block in tiny_clip.blocks("vision"))
    assert notes == ["torch.compile does not work here (no compiler): running without it"]
    with compiled(tiny_clip, False, notes.append):
        assert len(notes) == 1


def test_ways_of_computing_leave_the_run_directory_as_it_is():
    plain = RunSettings()
    assert RunSettings(workers=3, compile=True).fingerprint() == plain.fingerprint()
    assert RunSettings(precision="bf16").fingerprint() != plain.fingerprint()


def test_steps_on_the_cpu_do_not_look_for_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    make_trainer(RunSettings(), torch.device("cpu"), tmp_path, [])
    looks: list[int] = []
    monkeypatch.setattr(torch.cuda, "_raw_device_count_nvml", lambda: looks.append(1) or 0)
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.sum().backward()
    torch.optim.AdamW([parameter], fused=True).step()
    assert looks == []


@pytest.mark.parametrize(("device", "workers"), [("cpu", 0), ("cuda", 5)])
def test_workers_are_chosen_from_the_machine(monkeypatch, device, workers):
    monkeypatch.setattr(inputs, "choose_device", lambda _: torch.device(device))
    monkeypatch.setattr(inputs.os, "cpu_count", lambda: 6)
    assert inputs.workers(RunSettings()) == workers
    assert inputs.workers(RunSettings(workers=2)) == 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_allocator_is_put_back(monkeypatch):
    calls: list[tuple[int, int]] = []

    class Recording:
        def __init__(self, _: None) -> None:
            self.mallopt = lambda *pair: calls.append(pair)

    monkeypatch.setattr(ctypes, "CDLL", Recording)
    with freed_memory_kept(torch.device("cpu")):
        assert calls == list(allocator.KEEP.items())
    assert calls[len(allocator.KEEP) :] == list(allocator.DEFAULT.items())
    calls.clear()
    with freed_memory_kept(torch.device("cuda")):
        assert calls == []
