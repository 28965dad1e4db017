"""Which processes run tests; what these share is in `tests/fixtures.py`."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures, but not where tests are only handed out: PyTorch alone takes seconds."""
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """No test processes for tests out of one file or on a GPU; else as many as there are cores."""
    files = {str(argument).partition("::")[0] for argument in config.args}
    one_file = len(files) == 1 and Path(*files).suffix == ".py"
    return 0 if one_file or config.option.markexpr == "gpu" else None
