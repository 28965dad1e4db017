"""What only changes speed changes nothing else: compiled blocks, kept memory."""

import ctypes
import platform

import pytest
import torch

from clbench.core.settings import RunSettings
from clbench.engine.training import allocator, compiling
from clbench.engine.training.allocator import freed_memory_kept
from clbench.engine.training.compiling import compiled
from clbench.engine.training.trainers import make_trainer


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
