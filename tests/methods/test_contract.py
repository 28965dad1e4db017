"""What every method promises to the engine."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest
import torch

from clbench import registry
from clbench.core.method import Method
from tests.conftest import make_clip, make_task
from tests.methods.contract import (
    NoReferencePairs,
    begin,
    differences,
    end,
    optimizer_for,
    run_steps,
    run_task,
    saved,
    trained_names,
)

METHODS = registry.methods()
TASKS = [make_task(0), make_task(1, classes=4)]

every_method = pytest.mark.parametrize("cls", METHODS.values(), ids=METHODS)


def prepared(cls: type[Method]) -> Method:
    method = cls()
    method.prepare(make_clip())
    return method.eval()


def parameters(method: Method) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in method.named_parameters()}


@torch.no_grad()
def scores(method: Method) -> torch.Tensor:
    """Logits of both tasks' images among the classes of both."""
    candidates = TASKS[0][0].classes + TASKS[1][0].classes
    return method.classify(torch.cat([data.images for _, data in TASKS]), candidates)


def test_every_method_has_a_test_file():
    package = importlib.import_module("clbench.methods")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    assert len(names) >= 6
    missing = [n for n in names if not Path(__file__).with_name(f"test_{n}.py").is_file()]
    assert missing == []


@every_method
def test_every_hyperparameter_has_a_default_a_type_and_a_line_of_documentation(cls):
    for name, parameter in cls.schema().items():
        assert parameter.kind is parameter.KEYWORD_ONLY, name
        assert parameter.default is not parameter.empty, name
        assert parameter.annotation is not parameter.empty, name
        assert f"\n        {name}: " in (cls.__doc__ or ""), name
    assert cls.paper.startswith("https://")
    assert cls.paper in (cls.__doc__ or "")


@every_method
def test_repr_shows_every_hyperparameter(cls):
    shown = repr(cls())
    assert all(f"{name}={p.default!r}" in shown for name, p in cls.schema().items())
    assert shown.startswith(f"{cls.__name__}(")


@every_method
def test_loss_falls_over_a_task(cls):
    losses = torch.tensor(run_task(prepared(cls), *TASKS[0], steps=30))
    if cls.name == "zeroshot":
        assert len(losses) == 0
    else:  # batches come round in equal turn, so without learning nothing falls
        assert losses[:5].mean() - losses[-5:].mean() > 0.05


@every_method
def test_resumed_within_a_task_goes_on_bit_for_bit(cls):
    (task, data), later = TASKS[1], range(3, 6)
    whole = prepared(cls)
    run_task(whole, *TASKS[0], steps=3)
    optimizer = begin(whole, task, data)
    run_steps(whole, data, optimizer, range(3))
    state = saved(whole.state_dict())
    moments = saved(optimizer.state_dict()) if optimizer else None

    fresh = prepared(cls).train()
    fresh.load_state_dict(state)
    assert trained_names(fresh) == trained_names(whole)
    if restored := optimizer_for(fresh):
        restored.load_state_dict(moments)
    for method, its_optimizer in ((whole, optimizer), (fresh, restored)):
        run_steps(method, data, its_optimizer, later)
        end(method, task, data)
    assert list(differences(whole.state_dict(), fresh.state_dict())) == []
    assert torch.equal(scores(whole), scores(fresh))


@every_method
def test_resumed_between_tasks_goes_on_bit_for_bit(cls):
    whole, fresh = prepared(cls), prepared(cls)
    run_task(whole, *TASKS[0], steps=3)
    state = saved(whole.state_dict())
    torch.rand(7)  # a resumed process has drawn other numbers before
    fresh.load_state_dict(state)
    assert torch.equal(scores(whole), scores(fresh))
    for method in (whole, fresh):
        run_task(method, *TASKS[1], steps=3)
    assert list(differences(whole.state_dict(), fresh.state_dict())) == []
    assert whole.footprint() == fresh.footprint()


@every_method
def test_moves_what_requires_grad_and_nothing_else(cls):
    method = prepared(cls)
    for task, data in TASKS:
        optimizer = begin(method, task, data)
        declared, before = trained_names(method), parameters(method)
        run_steps(method, data, optimizer, range(3))
        moved = {n for n, p in method.named_parameters() if not torch.equal(p, before[n])}
        assert trained_names(method) == declared
        assert moved <= declared
        assert bool(moved) == bool(declared)
        end(method, task, data)


@every_method
def test_logit_scale_never_moves(cls):
    method = prepared(cls)
    before = method.model.logit_scale.item()
    for task, data in TASKS:
        run_task(method, task, data, steps=3)
        assert method.model.logit_scale.item() == before
        assert not method.model.logit_scale.requires_grad


@every_method
def test_ending_a_task_leaves_the_answers_as_they_are(cls):
    method = prepared(cls)
    for task, data in TASKS:
        optimizer = begin(method, task, data)
        run_steps(method, data, optimizer, range(5))
        method.eval()
        before = scores(method)
        end(method, task, data)
        torch.testing.assert_close(scores(method), before, atol=1e-4, rtol=1e-5)


@every_method
def test_scores_candidates_by_themselves(cls):
    method = prepared(cls)
    run_task(method, *TASKS[0], steps=2)
    both, (_, data) = TASKS[0][0].classes + TASKS[1][0].classes, TASKS[0]
    with torch.inference_mode():
        among_all = method.classify(data.images[:5], both)
        among_few = method.classify(data.images[:5], TASKS[1][0].classes)
    assert among_all.shape == (5, 7)
    torch.testing.assert_close(among_few, among_all[:, 3:], atol=1e-4, rtol=1e-5)


@every_method
def test_footprint_is_honest(cls):
    method = prepared(cls)
    for task, data in TASKS:
        optimizer = begin(method, task, data)
        groups = optimizer.param_groups if optimizer else []
        cost = method.footprint()
        assert cost.trainable == sum(p.numel() for g in groups for p in g["params"])
        assert min(cost.added, cost.stored, cost.external) >= 0
        run_steps(method, data, optimizer, range(1))
        end(method, task, data)


@every_method
def test_trains_and_answers_under_bfloat16(cls):
    method = prepared(cls)
    for task, data in TASKS:
        optimizer = begin(method, task, data)
        losses = run_steps(method, data, optimizer, range(2), bfloat16=True)
        assert all(torch.tensor(losses).isfinite())
        end(method, task, data)
    with torch.autocast("cpu", torch.bfloat16):
        half = scores(method)
    torch.testing.assert_close(half, scores(method), atol=1.0, rtol=0.05)
    assert all(p.dtype == torch.float32 for p in method.parameters())


@every_method
def test_needs_are_declared(cls):
    task, data = make_task(0)
    if "reference-images" in cls.needs:
        run_task(prepared(cls), task, data, steps=1)
        assert data.asked
    else:
        guarded = NoReferencePairs(data.images, data.labels, data.prompts, data.captions)
        run_task(prepared(cls), task, guarded, steps=1)
