"""What every method promises to the engine."""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clbench import registry
from clbench.core.method import Method
from clbench.testing import CHECKS
from clbench.testing.checks import Make

METHODS = registry.methods()
SMALL = {
    "ewc": {"fisher_images": 6},
    "gift": {"reference_batch": 16},
    "gnsp": {"reference_batch": 16},
    "icarl": {"reference_batch": 16},
    "lwf": {"reference_batch": 16},
    "lwf_vr": {"sentences": 50, "reference_batch": 16},
    "moe_adapters": {"experts": 4, "autoencoder_steps": 20, "reference_steps": 20},
    "snd": {"reference_batch": 16},
    "vpt_nsp": {"refine_epochs": 5, "refine_samples": 64},
    "zscl": {"reference_batch": 16},
}
"""Hyper-parameters of methods that would take long with their defaults."""


every_method = pytest.mark.parametrize("cls", METHODS.values(), ids=METHODS)


def small(cls: type[Method]) -> Make:
    """What makes the method, with small hyper-parameters."""
    return functools.partial(cls, **SMALL.get(cls.name, {}))


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        pytest.param(cls, check, id=f"{name}-{promise}")
        for name, cls in METHODS.items()
        for promise, check in CHECKS.items()
    ],
)
def test_keeps_its_promise(cls: type[Method], check: Callable[[Make, torch.device], None]) -> None:
    check(small(cls), torch.device("cpu"))


def test_every_method_has_a_test_file() -> None:
    package = importlib.import_module("clbench.methods")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    assert len(names) >= 6
    missing = [n for n in names if not Path(__file__).with_name(f"test_{n}.py").is_file()]
    assert missing == []


@every_method
def test_links_its_paper_in_its_documentation(cls: type[Method]) -> None:
    assert cls.paper in (cls.__doc__ or "")
