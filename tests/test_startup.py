"""Commands end quickly, and do all that the end of a process has to do."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from clbench.startup import loading


def end(program: str, stdout: int | object = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run a program that calls `leave`."""
    source = f"from clbench.startup import leave\nimport atexit, sys, threading\n{program}"
    command = [sys.executable, "-c", source]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("code", [0, 2, 130])
def test_what_was_printed_and_the_exit_code_arrive(code: int) -> None:
    ended = end(f"print('x' * 100_000); sys.stderr.write('why'); leave({code})")
    assert (ended.returncode, len(ended.stdout), ended.stderr) == (code, 100_001, "why")


def test_exit_functions_run() -> None:
    assert end("atexit.register(print, 'saved'); leave(0)").stdout == "saved\n"


def test_threads_that_are_at_work_are_waited_for() -> None:
    program = """
def work():
    threading.main_thread().join()
    print('finished')
threading.Thread(target=work).start()
leave(3)
"""
    ended = end(program)
    assert (ended.returncode, ended.stdout) == (3, "finished\n")


def test_output_that_cannot_be_written_is_a_failure() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        assert end("print('lost'); leave(0)", stdout=full).returncode == 1


def fail_to_load() -> None:
    with loading():
        assert not gc.isenabled()
        raise ImportError


def test_loading_leaves_the_collector_as_it_was() -> None:
    assert gc.isenabled()
    with pytest.raises(ImportError):
        fail_to_load()
    assert gc.isenabled()
    gc.disable()
    try:
        with loading():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_only_what_the_first_block_has_loaded_is_never_searched() -> None:
    program = """
import gc
from clbench.startup import loading
counts = []
for _ in range(2):
    with loading():
        import torch
    counts.append(gc.get_freeze_count())
print(counts[0] > 10_000, counts[0] == counts[1])
"""
    assert end(program).stdout == "True True\n"


def test_modules_that_others_load_for_nothing_are_loaded_when_they_are_used() -> None:
    program = """
from clbench.startup import loading
with loading():
    import clbench.api
    import timm.utils.summary as timm, scipy
    loaded = {name for name in ("wandb", "scipy.signal", "scipy.stats") if name in sys.modules
              and getattr(sys.modules[name], "__file__", None)}
    print(sorted(loaded))
    import wandb
    print(wandb.__version__ == timm.wandb.__version__)
import scipy.signal.windows
print(scipy.signal.convolve([1], [2])[0], timm.wandb.init is sys.modules["wandb"].init)
"""
    assert end(program).stdout == "[]\nTrue\n2 True\n"


def test_pictures_kept_on_disk_are_found_without_what_draws_them() -> None:
    program = """
from clbench.datamodules.mini import tasks
from clbench.datamodules.mini_render import renderer_hash
print(len(renderer_hash()), "sklearn" in sys.modules)
"""
    assert end(program).stdout == "64 False\n"


def test_what_the_block_itself_uses_is_loaded_in_it() -> None:
    program = """
from clbench.startup import loading
with loading():
    import scipy.signal.windows
    from wandb import init
print(scipy.signal.windows.hann(1), init is sys.modules["wandb"].init)
"""
    assert end(program).stdout == "[1.] True\n"


def test_modules_that_are_not_there_stay_away() -> None:
    program = """
import clbench.startup
from clbench.startup import loading
clbench.startup.UNUSED = {"no_such": {}, "no.such": {}, "colorsys": {}}
with loading():
    for name in clbench.startup.UNUSED:
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            print(error)
    from importlib.util import find_spec
    print(find_spec("colorsys").name, "__file__" in vars(sys.modules["colorsys"]))
print("colorsys" in sys.modules)
"""
    assert end(program).stdout == (
        "No module named 'no_such'\nNo module named 'no'\ncolorsys False\nFalse\n"
    )
