"""Drift: what the update of a task does to layers and features on images it was not meant for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final, final

import torch
from torch import Tensor, nn

from clbench.core.data import ImageSet
from clbench.core.probe import Look, Probe, spaced
from clbench.core.task import ClassTexts
from clbench.probes.spectrum import collected, layers_at

SAMPLES: Final = 64
"""Images, and texts, of each group that pass through the model before a task."""
TOKENS: Final = 64
"""Inputs of a layer that are kept of each group, evenly spaced."""
FEATURES: Final = 128
"""Images of each task whose features are compared with the start."""
GROUPS: Final = ("earlier", "unseen", "general")

Seen = tuple[Tensor, Tensor]
"""Inputs of a layer, ``(n, in)``, and its outputs before the task, ``(n, out)``."""


@final
class Drift(Probe):
    """Change of every layer's output through a task, and of features since the start.

    The inputs x of a layer are those that images and prompts of earlier tasks, of tasks to come
    and of no task cause in the model before the task. With the layer's output y before and y'
    after it, the drift is ``||y' - y|| / ||y||``, which for a linear layer without bias is
    ``||dW x|| / ||W x||``. Features are compared by linear CKA, which is 1 for features that are
    the same up to rotation and scale. Layers compute in the precision of their weights. Parts that
    a method adds beside the layers are seen in the features only.

    Source: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414 (CKA).
    """

    name: ClassVar[str] = "drift"
    wants: ClassVar[frozenset[Any]] = frozenset({"general"})

    def __init__(self) -> None:
        self._names: list[str] = []
        self._features: list[Tensor] = []
        self._seen: dict[str, dict[str, Seen]] = {}
        self._task = -1

    def start(self, look: Look) -> None:
        """Keep the features of all tasks and of the general images."""
        self._names = [name for name, _ in look.model.block_linears()]
        self._features = [look.features(images, FEATURES)[0] for images in _all_sets(look)]

    def before_task(self, look: Look) -> None:
        """Keep inputs and outputs of all layers."""
        self._task = look.learned
        self._seen = {}
        for group in GROUPS:
            sets, classes = _members(look, group, look.learned)
            if sets:
                self._seen[group] = observed(look, self._names, sets, classes)

    def measure(self, look: Look) -> Mapping[str, float | None]:
        """``earlier``, ``unseen``, ``general`` with details per layer, and their ``cka_``."""
        values: dict[str, float | None] = {}
        if self._task == look.learned - 1:
            found: dict[str, dict[str, float]] = {}
            now = layers_at(look.model, self._names)
            for group, seen in self._seen.items():
                for name, (x, before) in seen.items():
                    layer = now[name]
                    found.setdefault(name, {})[group] = relative_change(before, apply(layer, x))
            values |= collected(found)
        if self._features:
            values |= self._similarities(look)
        return values

    def _similarities(self, look: Look) -> dict[str, float]:
        now = [look.features(images, FEATURES)[0] for images in _all_sets(look)]
        similar = [linear_cka(a, b) for a, b in zip(self._features, now, strict=True)]
        tasks = len(look.benchmark)
        groups = {
            "earlier": similar[: max(0, look.learned - 1)],
            "unseen": similar[look.learned : tasks],
            "general": similar[tasks:],
        }
        return {f"cka_{name}": sum(v) / len(v) for name, v in groups.items() if v}


def relative_change(before: Tensor, after: Tensor) -> float:
    """``||after - before|| / ||before||``.

    >>> relative_change(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0]))
    0.2
    """
    before = before.double()
    return float((after.double() - before).norm() / before.norm())


def linear_cka(x: Tensor, y: Tensor) -> float:
    """``||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)`` of centred features of the same N images.

    Args:
        x: ``(N, D)``.
        y: ``(N, E)``.
    """
    x, y = (part.double() - part.double().mean(0) for part in (x, y))
    return float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def observed(
    look: Look, names: Sequence[str], sets: Sequence[ImageSet], classes: Sequence[ClassTexts]
) -> dict[str, Seen]:
    """What layers receive and return while images and prompts pass through the model.

    Args:
        look: the model.
        names: of the layers; those that nothing passes through are left out.
        sets: images, of which `SAMPLES` are taken.
        classes: likewise of their training prompts.
    """
    inputs: dict[str, Tensor] = {}
    keep: list[Tensor] = []

    def take(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        rows = args[0].detach().flatten(0, -2)
        if keep and len(keep[0]) == len(rows):
            rows = rows[keep[0]]
        inputs[name] = rows[list(spaced(len(rows), TOKENS))].float().clone()

    layers = layers_at(look.model, names)
    hooks = [layer.register_forward_pre_hook(partial(take, name)) for name, layer in layers.items()]
    try:
        share = -(-SAMPLES // len(sets))
        images = [batch for one in sets for batch, _ in look.batches(one, share)]
        look.model.encode_image(torch.cat(images))
        texts = [text for one in classes for text in one.training_prompts]
        tokens = look.model.tokenize([texts[i] for i in spaced(len(texts), SAMPLES)])
        ends = tokens.argmax(dim=1, keepdim=True)  # what follows the end of a text has no effect
        keep.append((torch.arange(tokens.shape[1], device=tokens.device) <= ends).flatten())
        look.model.encode_text(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (x.cpu(), apply(layers[name], x)) for name, x in inputs.items()}


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's output on the CPU, for inputs from anywhere."""
    place = next(layer.parameters()).device
    output: Tensor = layer(x.to(place))
    return output.cpu()


def _all_sets(look: Look) -> list[ImageSet]:
    return [*look.test_sets, *(general.images for general in look.data.general)]


def _members(look: Look, group: str, task: int) -> tuple[list[ImageSet], list[ClassTexts]]:
    """Images and classes of a group, seen from before a task."""
    if group == "general":
        general = look.data.general
        return [one.images for one in general], [one.classes for one in general]
    chosen = slice(0, task) if group == "earlier" else slice(task + 1, None)
    tasks = look.benchmark.tasks[chosen]
    return list(look.test_sets[chosen]), [one.classes for one in tasks]
