"""One training step of a method, plain and shipped, on the same model and inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.model import CLIP
from clbench.core.method import Method
from clbench.engine.training.allocator import freed_memory_kept
from clbench.methods.gnsp import GNSP
from clbench.methods.nusa import NuSA
from speed import plain
from speed.setting import RandomTask, Size, build_model, class_texts, core_of, random_images

NUSA_LR = 3e-4
GNSP_LR = 2e-5
"""Learning rates as published."""
Step = Callable[[], float]


@dataclass
class Pair:
    """The same training step in two formulations.

    Attributes:
        plain: takes a step and returns the loss.
        shipped: likewise.
        weights: pairs of weights that both have trained, to be compared.
    """

    plain: Step
    shipped: Step
    weights: Callable[[], list[tuple[Tensor, Tensor]]]


class NuSASteps:
    """NuSA-CL on a random model; the null spaces are found once, for any number of classes."""

    def __init__(self, size: Size, device: torch.device, dropout: float = 0.25) -> None:
        self.size = size
        self.model = build_model(size, device)
        self.encoders = plain.Encoders.of(self.model)
        self.method = NuSA(rank=size.rank, dropout=dropout)
        self.method.prepare(self.model)
        self.method.to(device).train()
        task = RandomTask(self.model, class_texts(2), random_images(self.model, 2, 0))
        self.method.begin_task(task.task, task)
        adapters = {n.removeprefix("network."): a for n, a in self.method.adapters.items()}
        factors = {name: (a.up.detach(), a.down.detach().T) for name, a in adapters.items()}
        scale = next(iter(adapters.values())).scale
        self.update = plain.MaterialisedUpdate(factors, scale, dropout)
        self.adapters = adapters

    def pair(self, classes: int, precision: torch.dtype | None = None) -> Pair:
        """Steps among a number of classes; M starts at zero in both."""
        data = RandomTask(
            self.model, class_texts(classes), random_images(self.model, self.size.batch, 1)
        )
        batch = next(data.batches(self.size.batch))
        with torch.no_grad():
            for name, adapter in self.adapters.items():
                core_of(adapter).zero_()
                self.update.cores[name].zero_()
        shipped = shipped_step(self.method, lambda: self.method.loss(batch), NUSA_LR, precision)
        trained = list(self.update.cores.values())
        optimizer = torch.optim.AdamW(trained, lr=NUSA_LR, weight_decay=0.01)

        def step() -> float:
            optimizer.zero_grad()
            with _autocast(self.model, precision):
                pixels = _normalised(self.model, batch.images)
                texts = self.encoders.text(batch.prompts, self.update)
                features = self.encoders.image(pixels, self.update)
                logits = self.model.logit_scale.exp() * features @ texts.T
                loss = F.cross_entropy(logits, batch.labels, label_smoothing=0.2)
            loss.backward()
            optimizer.step()
            return loss.item()

        def weights() -> list[tuple[Tensor, Tensor]]:
            return [
                (self.adapters[name].delta(), _full(self.update, name)) for name in self.adapters
            ]

        return Pair(step, shipped, weights)


class GNSPSteps:
    """GNSP in its second task: text encoder frozen, gradients projected, teacher distilled."""

    def __init__(self, size: Size, device: torch.device, classes: int, pool: int = 64) -> None:
        self.size = size
        self.model = build_model(size, device)
        self.teacher = plain.Encoders.of(self.model, copy=True)
        self.method = GNSP(
            reference="benchmark", reference_count=pool, reference_batch=size.reference
        )
        self.method.prepare(self.model)
        self.method.to(device)
        self.data = RandomTask(self.model, class_texts(classes), random_images(self.model, pool, 1))
        self.method.eval()
        self.method.end_task(self.data.task, self.data)
        self.grams = [memory.gram.clone() for memory in self.method.memories]

    def pair(self, precision: torch.dtype | None = None) -> Pair:
        """Steps of a task that begins now."""
        method, model = self.method, self.model
        method.train()
        method.begin_task(self.data.task, self.data)
        batch = next(self.data.batches(self.size.batch))
        shipped = shipped_step(method, lambda: method.loss(batch), GNSP_LR, precision)
        names = _names(model, method.weights)
        student = dict(self.teacher.state)
        student |= {name: student[name].clone().requires_grad_() for name in names}
        encoders = self.teacher._replace(state=student)
        trained = [student[name] for name in names]
        splits = [memory.split().null for memory in method.memories]
        projectors = [null @ null.T for null in splits]
        optimizer = torch.optim.AdamW(trained, lr=GNSP_LR, weight_decay=0.01)
        in_turn = self._in_turn()

        def step() -> float:
            optimizer.zero_grad()
            with _autocast(model, precision):
                loss = self._plain_loss(encoders, batch.images, batch.labels, next(in_turn))
            loss.backward()
            with torch.no_grad():
                for weight, projector in zip(trained[:-1], projectors[:-1], strict=True):
                    weight.grad = _gradient(weight) @ projector
                trained[-1].grad = projectors[-1] @ _gradient(trained[-1])
            optimizer.step()
            return loss.item()

        return Pair(step, shipped, lambda: list(zip(method.weights, trained, strict=True)))

    @property
    def _pairs(self) -> dict[str, Tensor]:
        assert self.method.pairs is not None, "both losses on pairs are on"
        return self.method.pairs.scored.pairs

    def _in_turn(self) -> Iterator[slice]:
        """Which pairs a step takes: each once, in order, pass after pass."""
        count, size = len(self._pairs["images"]), self.size.reference
        while True:
            yield from (slice(start, start + size) for start in range(0, count, size))

    def _plain_loss(
        self, encoders: plain.Encoders, images: Tensor, labels: Tensor, chosen: slice
    ) -> Tensor:
        """Teacher and both text encoders run in every step."""
        pairs, scale = self._pairs, self.model.logit_scale.exp()
        pixels, captions = pairs["images"][chosen], pairs["labels"][chosen]
        reference = _normalised(self.model, pixels)
        tokens = pairs["tokens"][captions]
        with torch.no_grad():
            teacher = scale * self.teacher.image(reference) @ self.teacher.text(tokens).T
        z = scale * encoders.image(reference) @ encoders.text(tokens).T
        texts = encoders.text(self.data.prompts)
        logits = scale * encoders.image(_normalised(self.model, images)) @ texts.T
        task = F.cross_entropy(logits, labels, label_smoothing=0.2)
        return task + plain.pair_losses(z, teacher, captions)


def largest_differences(pair: Pair, steps: int) -> dict[str, float]:
    """Train both formulations for some steps and compare losses and weights."""
    losses = [(pair.plain(), pair.shipped()) for _ in range(steps)]
    weights = [(a - b).abs().max().item() for a, b in pair.weights()]
    return {
        "steps": steps,
        "loss": max(abs(a - b) for a, b in losses),
        "weights": max(weights),
    }


def shipped_step(
    method: Method,
    loss: Callable[[], Mapping[str, Tensor]],
    lr: float,
    precision: torch.dtype | None = None,
) -> Step:
    """What the engine does in a step, memory included."""
    step = training_step(method, loss, lr, precision)

    def keeping() -> float:
        with freed_memory_kept(method.model.device):
            return step()

    return keeping


def training_step(
    method: Method,
    loss: Callable[[], Mapping[str, Tensor]],
    lr: float,
    precision: torch.dtype | None = None,
) -> Step:
    """What the engine does in a step."""
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.01, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        with _autocast(method.model, precision):
            terms = loss()
            total = torch.stack([*terms.values()]).sum()
        total.backward()
        method.after_backward()
        optimizer.step()
        method.after_step()
        return total.item()

    return step


def _autocast(model: CLIP, precision: torch.dtype | None) -> AbstractContextManager[None]:
    kind = model.device.type
    return torch.autocast(kind, precision, enabled=precision is not None)


def _normalised(model: CLIP, images: Tensor) -> Tensor:
    return (images.to(model.device) / 255 - model.mean) / model.std


def _full(update: plain.MaterialisedUpdate, name: str) -> Tensor:
    u, v = (factor.double() for factor in update.factors[name])
    return update.scale * u @ update.cores[name].detach().double() @ v.T


def _gradient(weight: Tensor) -> Tensor:
    assert weight.grad is not None, "after backward"
    return weight.grad


def _names(model: CLIP, weights: Sequence[Tensor]) -> list[str]:
    """Names of weights in open_clip's state dict."""
    found = {id(p): name for name, p in model.network.named_parameters()}
    return [found[id(weight)] for weight in weights]
