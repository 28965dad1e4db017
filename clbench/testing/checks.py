"""What every method promises to the engine, one function per promise."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor

from clbench.core.errors import ClbenchError
from clbench.core.hyperparameters import meaning
from clbench.core.method import Method, Need, Trait
from clbench.core.task import ClassTexts
from clbench.engine.process.randomness import exact_kernels
from clbench.engine.training.attributes import Attributes
from clbench.engine.training.contract import FrozenWeights, check_begun, check_ended
from clbench.engine.training.footprints import measured, state_bytes
from clbench.testing.driving import (
    RATE,
    begin,
    differences,
    end,
    optimization,
    run_steps,
    run_task,
    saved,
    scores,
    trained_names,
)
from clbench.testing.toys import GuardedData, ToyData, make_clip, make_tasks

Make = Callable[[], Method]
"""Returns a new method, not yet prepared."""
CLOSE = (1e-4, 1e-5)
"""Absolute and relative tolerance: on the CPU, sums may be taken in another order."""
CLOSE_ELSEWHERE = (2e-3, 1e-4)
"""On a GPU, another batch size chooses another kernel."""
STEPS = 20
"""In which a method must learn something."""
ROUNDED = (0.1, 0.02)
"""Absolute and relative tolerance where autocast rounds to bfloat16."""


def check_method(
    cls: type[Method],
    params: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Try a method on two tiny tasks and hold it against every promise of the contract.

    A method that differs from most in a way that the engine allows says so in `Method.traits`,
    `Method.needs` and `Method.decides_by_batch`, and is held against what it says. Takes seconds.

    Args:
        cls: the method's class.
        params: hyper-parameters that differ from the defaults; small ones make it quick.
        device: where to compute.

    Raises:
        AssertionError: promises that are broken, a line each.
    """
    make = functools.partial(cls, **(params or {}))
    broken: list[str] = []
    first: Exception | None = None
    for name, check in CHECKS.items():
        try:
            with deterministic():
                check(make, torch.device(device))
        except Exception as error:  # whatever the method raises keeps a promise from being kept
            first = first or error
            kind = "" if isinstance(error, AssertionError | ClbenchError) else type(error).__name__
            reason = " ".join(f"{kind}: {error}".removeprefix(": ").split())
            broken.append(f"{name}: {reason or 'the assertion failed'}")
    if broken:
        lines = [f"method {cls.__name__} breaks its contract:", *broken]
        raise AssertionError("\n".join(lines)) from first


@contextmanager
def deterministic() -> Iterator[None]:
    """While open, kernels that give the same bits every time, and a fixed random state."""
    with exact_kernels(True):
        torch.manual_seed(0)
        yield


def declares_its_hyperparameters(make: Make, _: torch.device) -> None:
    """Each has a type, a default and a line of text; `repr` shows them."""
    method = make()
    for name, parameter in method.schema().items():
        assert parameter.kind is parameter.KEYWORD_ONLY, f"{name} can be given without its name"
        assert parameter.default is not parameter.empty, f"{name} has no default"
        assert parameter.annotation is not parameter.empty, f"{name} has no type"
        assert meaning(parameter), f"{name} has no Field(description=...) in its annotation"
        assert f"{name}={getattr(method, name)!r}" in repr(method), f"repr does not show {name}"


def declares_what_it_is(make: Make, _: torch.device) -> None:
    """Name, paper, needs and traits are there and known."""
    cls = type(make())
    assert isinstance(cls.name, str), "the class needs a name"
    assert cls.name, "its name is empty"
    assert cls.paper.startswith("https://"), f"paper must be a https URL, got {cls.paper!r}"
    for what, found, known in (("needs", cls.needs, Need), ("traits", cls.traits, Trait)):
        unknown = sorted(found - set(get_args(known)))
        assert not unknown, f"{what} has {unknown[0]!r}: known are {', '.join(get_args(known))}"


def learns(make: Make, device: torch.device) -> None:
    """The loss or a term of it falls over a task; a method that trains nothing takes no step.

    A penalty on what has changed starts at zero and can but grow, so the sum may not fall. Methods
    that train no weights of the model, but prompts, may need a higher rate and reach less by it.
    """
    for rate, enough in ((RATE, 0.05), (30 * RATE, 0.03)):
        task, data = _tasks(device)[0]
        method = _prepared(make, device)
        terms: list[Mapping[str, Tensor]] = []
        driven = begin(method, task, data, STEPS, rate)
        losses = run_steps(method, data, driven, range(STEPS), seen=terms.append)
        if "trains-nothing" in method.traits:
            assert not losses, "declares trains-nothing, but has parameters that require grad"
            return
        assert losses, "nothing requires grad after begin_task, and trains-nothing is not declared"
        assert torch.tensor(losses).isfinite().all(), "the loss is not finite"
        series = [losses, *([step[name].item() for step in terms] for name in terms[0])]
        # Batches come round in equal turn, so without learning nothing falls.
        fall = max((sum(values[:4]) - sum(values[-4:])) / 4 for values in series)
        if fall > enough:
            return
    raise AssertionError(
        f"neither the loss nor a term of it falls: by {fall:.3f} over {STEPS} steps"
    )


def resumes_within_a_task(make: Make, device: torch.device) -> None:
    """Saved in the middle of a task and loaded elsewhere, it goes on bit for bit."""
    tasks = _tasks(device)
    (task, data), later = tasks[1], range(2, 4)
    whole = _prepared(make, device)
    run_task(whole, *tasks[0], steps=2)
    start = copy.deepcopy(whole.state_dict())
    driven = begin(whole, task, data)
    run_steps(whole, data, driven, range(2))
    middle = saved(whole.state_dict())
    moments = None if driven is None else saved([part.state_dict() for part in driven])

    resumed = []
    through = _prepared(make, device)  # as the engine does it
    through.load_state_dict(start)
    through.train()
    through.begin_task(task, data)
    through.load_state_dict(middle)
    resumed.append(through)
    if not (whole.transient or "resumes-through-begin-task" in whole.traits):
        direct = _prepared(make, device).train()
        direct.load_state_dict(middle)
        resumed.append(direct)
    names = trained_names(whole)
    for method in resumed:
        found = sorted(names ^ trained_names(method))
        assert not found, f"{found[0]} requires grad before or after the resume, not in both"
        mine = optimization(method)
        parts: list[Any] = [*(mine or ())]
        for part, state in zip(parts, copy.deepcopy(moments or ()), strict=True):
            part.load_state_dict(state)
        run_steps(method, data, mine, later)
        end(method, task, data)
    run_steps(whole, data, driven, later)
    end(whole, task, data)
    for method in resumed:
        _require_same(whole, method, tasks)


def resumes_between_tasks(make: Make, device: torch.device) -> None:
    """Saved between two tasks and loaded elsewhere, it answers and goes on bit for bit."""
    tasks = _tasks(device)
    whole, fresh = _prepared(make, device), _prepared(make, device)
    run_task(whole, *tasks[0], steps=2)
    state = saved(whole.state_dict())
    torch.rand(7)  # a resumed process has drawn other numbers before
    fresh.load_state_dict(state)
    _require_same_answers(whole, fresh, tasks, "after loading")
    for method in (whole, fresh):
        run_task(method, *tasks[1], steps=2)
    _require_same(whole, fresh, tasks)
    assert whole.footprint() == fresh.footprint(), "the footprint is another after a resume"


def keeps_its_state_in_its_state_dict(make: Make, device: torch.device) -> None:
    """No attribute changes over a task, or within one, that a resumed run would not get back."""
    method = _prepared(make, device)
    between = Attributes(method)
    for task, data in _tasks(device):
        between.mark()
        driven = begin(method, task, data)
        within = Attributes(method)
        run_steps(method, data, driven, range(2))
        within.require_kept("in two steps")
        end(method, task, data)
        between.require_kept("over a task")


def moves_what_requires_grad(make: Make, device: torch.device) -> None:
    """Training moves the parameters that require grad, nothing else, and never the logit scale."""
    method = _prepared(make, device)
    scale = method.model.logit_scale.item()
    for task, data in _tasks(device):
        driven = begin(method, task, data)
        check_begun(method, task.name)
        frozen = FrozenWeights(method)
        declared = trained_names(method)
        before = {name: p.detach().clone() for name, p in method.named_parameters()}
        run_steps(method, data, driven, range(3))
        moved = {n for n, p in method.named_parameters() if not torch.equal(p, before[n])}
        assert trained_names(method) == declared, "a step changed what requires grad"
        assert moved <= declared, f"{min(moved - declared, default='')} moved but is frozen"
        assert bool(moved) == bool(declared), "nothing moved in three steps"
        frozen.check(task.name)
        end(method, task, data)
        check_ended(method, task.name)
        assert method.model.logit_scale.item() == scale, "logit_scale moved"


def answers_stay_when_a_task_ends(make: Make, device: torch.device) -> None:
    """Unless declared, `end_task` leaves the answers as training left them."""
    tasks = _tasks(device)
    method = _prepared(make, device)
    if method.traits & {"answers-change-at-end", "trains-nothing"}:
        return
    for task, data in tasks:
        driven = begin(method, task, data)
        run_steps(method, data, driven, range(5))
        method.eval()
        before = _all_scores(method, tasks)
        end(method, task, data)
        _require_close(
            _all_scores(method, tasks),
            before,
            "end_task changed the answers: declare answers-change-at-end if it is meant to",
            device,
        )


def testing_changes_nothing(make: Make, device: torch.device) -> None:
    """The same question gets the same answer, and leaves the state as it was."""
    tasks = _tasks(device)
    method = _prepared(make, device)
    run_task(method, *tasks[0], steps=2)
    before = copy.deepcopy(method.state_dict())
    attributes = Attributes(method)
    first = _all_scores(method, tasks)
    second = _all_scores(method, tasks)
    assert torch.equal(first, second), "classify gives another answer the second time"
    changed = [*differences(before, method.state_dict())]
    assert not changed, f"classify changed {changed[0]}"
    attributes.require_kept("in classify")


def scores_every_candidate(make: Make, device: torch.device) -> None:
    """One column per candidate, in their order; unless declared, each scored by itself."""
    tasks = _tasks(device)
    method = _prepared(make, device)
    run_task(method, *tasks[0], steps=2)
    images = tasks[0][1].images[:5]
    first, second = (task.classes for task, _ in tasks)
    both = scores(method, images, first + second)
    shape = (5, len(first) + len(second))
    assert both.shape == shape, f"logits are {tuple(both.shape)}, not {shape}"
    turned = scores(method, images, second + first)
    expected = torch.cat([both[:, len(first) :], both[:, : len(first)]], dim=1)
    _require_close(turned, expected, "the order of the candidates changes their scores", device)
    if "compares-candidates" not in method.traits:
        few = scores(method, images, second)
        _require_close(
            few,
            both[:, len(first) :],
            "a class's score depends on the other candidates: declare compares-candidates if it is "
            "meant to",
            device,
        )


def decides_by_the_image(make: Make, device: torch.device) -> None:
    """Unless declared, answers do not depend on which images share a batch, or on how many."""
    for rate in (RATE, RATE / 10):  # at the lower one, features hardly drift between tasks
        tasks = _tasks(device)
        method = _prepared(make, device)
        if method.decides_by_batch:
            return
        for task, data in tasks:
            run_task(method, task, data, steps=3, rate=rate)
        candidates = tasks[0][0].classes + tasks[1][0].classes
        images = torch.cat([data.images for _, data in tasks])
        by_task = torch.cat([scores(method, data.images, candidates) for _, data in tasks])
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        for size, count in ((1, 6), (7, len(images)), (len(images), len(images))):
            chosen = order[:count]
            parts = [scores(method, images[part], candidates) for part in chosen.split(size)]
            _require_close(
                torch.cat(parts),
                by_task[chosen],
                "answers move when images of several tasks share a batch, or with its size, so the "
                "method learns the task from the test loader: decide image by image, or declare "
                "decides_by_batch",
                device,
            )


def states_its_footprint(make: Make, device: torch.device) -> None:
    """Trainable parameters are those of the optimizer, and no number is negative."""
    method = make()
    clip = make_clip().to(device)
    backbone = state_bytes(clip)
    method.prepare(clip)
    method.to(device)
    for task, data in _tasks(device):
        driven = begin(method, task, data)
        groups = driven[0].param_groups if driven else []
        cost = method.footprint()
        trained = sum(p.numel() for group in groups for p in group["params"])
        assert cost.trainable == trained, f"trainable is {cost.trainable}, not {trained}"
        run_steps(method, data, driven, range(1))
        end(method, task, data)
        cost = measured(method, backbone)
        assert min(cost.added, cost.stored, cost.external) >= 0, f"a negative number: {cost}"


def works_in_bfloat16(make: Make, device: torch.device) -> None:
    """It trains and answers under autocast, about as without, and weights stay in float32."""
    tasks = _tasks(device)
    method = _prepared(make, device)
    for task, data in tasks:
        driven = begin(method, task, data)
        losses = run_steps(method, data, driven, range(2), bfloat16=True)
        assert all(torch.tensor(losses).isfinite()), "the loss is not finite"
        end(method, task, data)
    with torch.autocast(device.type, torch.bfloat16):
        half = _all_scores(method, tasks)
    assert half.isfinite().all(), "the answers are not finite"
    exact = _all_scores(method, tasks)
    # In the middle: where a method chooses between parts of itself, rounding may choose another.
    far, most = (half - exact).abs().median(), ROUNDED[0] + ROUNDED[1] * exact.abs().median()
    assert far <= most, f"the answers are not those in float32 (by {far:.3g} at the median)"
    kinds = {p.dtype for p in method.parameters() if p.is_floating_point()}
    assert kinds <= {torch.float32, torch.float64}, f"parameters became {kinds}"


def asks_for_what_it_declares(make: Make, device: torch.device) -> None:
    """It uses reference data and data of other tasks only if it says so, and says it only then."""
    tasks = _tasks(device)
    method = _prepared(make, device)
    used: set[str] = set()
    for task, data in tasks:
        guarded = GuardedData(data.to(device), method.needs)
        guarded.others = [other for _, other in tasks]
        run_task(method, task, guarded, steps=1)
        used |= guarded.used
    checked = {"reference-images", "reference-texts", "all-data"}
    if "trains-at-once" in method.traits:  # the engine mixes the tasks
        checked.remove("all-data")
    unused = sorted((method.needs & checked) - used)
    assert not unused, f"declares {unused[0]} but never asks for it"


CHECKS: Mapping[str, Callable[[Make, torch.device], None]] = {
    check.__name__: check
    for check in (
        declares_its_hyperparameters,
        declares_what_it_is,
        learns,
        resumes_within_a_task,
        resumes_between_tasks,
        keeps_its_state_in_its_state_dict,
        moves_what_requires_grad,
        answers_stay_when_a_task_ends,
        testing_changes_nothing,
        scores_every_candidate,
        decides_by_the_image,
        states_its_footprint,
        works_in_bfloat16,
        asks_for_what_it_declares,
    )
}
"""Every promise by its name."""


def _tasks(device: torch.device) -> list[tuple[Any, ToyData]]:
    """Two tasks of three and four classes."""
    tasks = [(task, data.to(device)) for task, data in make_tasks(3, 4)]
    for _, data in tasks:
        data.others = [other for _, other in tasks]
    return tasks


def _prepared(make: Make, device: torch.device) -> Method:
    torch.manual_seed(0)
    method = make()
    method.prepare(make_clip().to(device))
    return method.to(device).eval()


def _all_scores(method: Method, tasks: list[tuple[Any, ToyData]]) -> Tensor:
    """Logits of all tasks' images among the classes of all."""
    candidates = functools.reduce(ClassTexts.__add__, (task.classes for task, _ in tasks))
    return scores(method, torch.cat([data.images for _, data in tasks]), candidates)


def _require_close(found: Tensor, expected: Tensor, what: str, device: torch.device) -> None:
    atol, rtol = CLOSE if device.type == "cpu" else CLOSE_ELSEWHERE
    if not torch.allclose(found, expected, rtol=rtol, atol=atol):
        raise AssertionError(f"{what} (by up to {(found - expected).abs().max():.3g})")


def _require_same(whole: Method, fresh: Method, tasks: list[tuple[Any, ToyData]]) -> None:
    differing = [*differences(whole.state_dict(), fresh.state_dict())]
    assert not differing, f"after the resume, {differing[0]} differs from an uninterrupted run"
    _require_same_answers(whole, fresh, tasks, "after a resume")


def _require_same_answers(
    whole: Method, fresh: Method, tasks: list[tuple[Any, ToyData]], when: str
) -> None:
    """The same bits on the CPU; elsewhere an update that adds zeros may choose another kernel."""
    what = f"the answers {when} differ from those of an uninterrupted run"
    device = whole.model.device
    expected, found = _all_scores(whole, tasks), _all_scores(fresh, tasks)
    if device.type == "cpu":
        assert torch.equal(found, expected), what
    _require_close(found, expected, what, device)
