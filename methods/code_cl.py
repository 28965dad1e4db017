"""CODE-CL: weights change softly outside the directions of earlier tasks, which tasks may map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn

from clbench.clip.adapters.transfer import Transfer, TransferLinear
from clbench.clip.draws import Draws, linear_start
from clbench.clip.growing import let_grow
from clbench.clip.losses import classification
from clbench.clip.subspaces.conceptors import ConceptorMemory, conceptor, floored, leading
from clbench.clip.subspaces.covariance import observing
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Footprint, Method
from clbench.core.task import ClassTexts, Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

FLOOR: Final = 0.2
"""Eigenvalues of a new task's conceptor that do not count when it is compared with the memory."""
WIDER_THAN: Final = 50
"""Inputs that a layer has at least one more of, if tasks may have maps for it."""


@final
class CODECL(Method):
    """Change attention weights by what a conceptor of earlier inputs leaves of every step.

    Every input of attention weights, that of query, key and value and that of the output
    projection of each block, has a conceptor C: a symmetric matrix with eigenvalues near 1 along
    directions that earlier tasks used. The change of a step is ``dW - dW C``. After a task, with B
    the conceptor of its inputs, ``C <- C or B``. Where a task's inputs share more than a part of
    C's directions, U being the leading ones, the task trains a map S of its own as well:
    ``y = (W + W U S U^T - W U U^T) x + b``. At test, every class is scored by the model with the
    maps of its own task, classes that were not learned by the model without maps.

    Published for networks trained from scratch; that it is the attention weights of CLIP, and how
    classes choose maps, is ours.

    Stored: a conceptor per input, and the maps.

    Paper: https://arxiv.org/abs/2411.15235
    """

    name: ClassVar[str] = "code_cl"
    title: ClassVar[str] = "CODE-CL"
    family: ClassVar[str] = "Projected gradients and steps"
    paper: ClassVar[str] = "https://arxiv.org/abs/2411.15235"
    disjoint_classes: ClassVar[bool] = True

    ids: Tensor
    """The numbers of all classes so far in the whole benchmark, ``(K,)``."""
    owners: Tensor
    """The tasks that they belong to, ``(K,)``."""

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        aperture: Annotated[float, Field(gt=0, description="First aperture of a conceptor.")] = 6.0,
        threshold: Annotated[
            float,
            Field(
                ge=0,
                le=0.999,
                description="Share of its inputs that a conceptor lets through; its aperture grows "
                "until it does.",
            ),
        ] = 0.95,
        gain: Annotated[
            float, Field(gt=1, description="Factor by which the aperture grows.")
        ] = 1.1,
        lower_bound: Annotated[
            float, Field(ge=0, lt=1, description="Eigenvalues of the memory that become zero.")
        ] = 0.2,
        samples: Annotated[
            int, Field(ge=1, description="Images of a task that conceptors are taken from.")
        ] = 125,
        transfer: Annotated[bool, Field(description="Whether tasks may have maps.")] = True,
        similarity: Annotated[
            float,
            Field(
                ge=0, description="Part of the memory that a task shares at least if it has a map."
            ),
        ] = 0.5,
        free: Annotated[int, Field(ge=1, description="Directions that a map has.")] = 80,
        projection: Annotated[
            Literal["update", "gradient"],
            Field(
                description="What is projected: the optimizer's update, or the gradient, as "
                "released, which is the same for plain SGD only."
            ),
        ] = "update",
        as_released: Annotated[
            bool, Field(description="Maps start at random instead of from the identity.")
        ] = False,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Train the attention weights; put a memory, and room for maps, beside their inputs."""
        super().prepare(model)
        self.draws = Draws()
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("owners", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "ids", "owners")
        self.inputs = list(self._adapted(model))
        self.memories = nn.ModuleList(ConceptorMemory() for _ in self.inputs)
        self.transfers = nn.ModuleList(part.transfer for part in self.inputs)
        self._before: list[Tensor] = []

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Find which inputs the task shares with earlier ones, and give it maps there."""
        self.ids = torch.cat([self.ids, self.ids.new_tensor(task.classes.ids)])
        owners = self.owners.new_full((len(task.classes),), task.index)
        self.owners = torch.cat([self.owners, owners])
        if not self.transfer or not task.index:
            return
        bases = []
        for part, memory, x in self._seen(task, data):
            common, share = memory.shared(floored(self._conceptor(x), FLOOR))
            if share > self.similarity and len(x) > WIDER_THAN:
                bases.append((part.transfer, leading(common, self.free)))
        for transfer, basis in bases:  # random maps change what others see
            transfer.start(task.index, basis, self._start(basis.shape[1]))

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    @torch.no_grad()
    def after_backward(self) -> None:
        """Project the gradients, or remember the weights that the step starts from."""
        if self.projection == "update":
            self._before = [weight.detach().clone() for weight, _ in self._weights()]
            return
        for weight, memory in self._weights():
            if weight.grad is not None:
                weight.grad.copy_(memory.outside(weight.grad))

    @torch.no_grad()
    def after_step(self) -> None:
        """Project the step that the optimizer took."""
        if self.projection == "update":
            for (weight, memory), before in zip(self._weights(), self._before, strict=True):
                weight.copy_(before + memory.outside(weight - before))
            self._before = []

    def end_task(self, task: Task, data: TaskData) -> None:
        """Add the task's inputs to the memories, and keep its maps."""
        for _, memory, x in self._seen(task, data):
            memory.extend(self._conceptor(x), self.lower_bound)
        for part in self.inputs:
            part.transfer.keep()

    @property
    def answers_with_model(self) -> bool:
        """Whether there are no maps."""
        return not self.transfer

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """Score every class by the model with the maps of its own task."""
        if not self.transfer:
            return super().classify(images, candidates)
        columns: dict[int, list[int]] = {}
        for column, task in enumerate(self._tasks_of(candidates)):
            columns.setdefault(task, []).append(column)
        parts = []
        for task, chosen in columns.items():
            with self._maps_of(task):
                parts.append(super().classify(images, candidates.only(chosen)))
        order = torch.tensor([c for chosen in columns.values() for c in chosen])
        return torch.cat(parts, dim=1)[:, order.argsort().to(parts[0].device)]

    def footprint(self) -> Footprint:
        """The tested model has, beyond the backbone, the maps and their bases."""
        kept = [
            tensor for part in self.inputs for tensor in (part.transfer.bases, part.transfer.maps)
        ]
        added = sum(tensor.numel() for tensor in kept)
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)

    def _adapted(self, model: CLIP) -> Iterator[AdaptedInput]:
        """Every input of attention weights, whose layers are wrapped where tasks may have maps."""
        for encoder in ("text", "vision"):
            for block in model.blocks(encoder):
                attention: Any = block.attn
                for names in (("q_proj", "k_proj", "v_proj"), ("out_proj",)):
                    transfer = Transfer(attention.embed_dim)
                    weights = []
                    for name in names:
                        linear = getattr(attention, name)
                        weights.append(linear.weight.requires_grad_(True))
                        if self.transfer:
                            setattr(attention, name, TransferLinear(linear, transfer))
                    receiver = attention if len(names) > 1 else attention.out_proj
                    yield AdaptedInput(receiver, encoder == "text", weights, transfer)

    def _parts(self) -> Iterator[tuple[AdaptedInput, ConceptorMemory]]:
        memories = cast("Sequence[ConceptorMemory]", self.memories)
        return zip(self.inputs, memories, strict=True)

    def _weights(self) -> Iterator[tuple[Tensor, ConceptorMemory]]:
        """Weights, each with the memory of its input."""
        for part, memory in self._parts():
            for weight in part.weights:
                yield weight, memory

    @torch.no_grad()
    def _seen(
        self, task: Task, data: TaskData
    ) -> Iterator[tuple[AdaptedInput, ConceptorMemory, Tensor]]:
        """What each input receives from some images of a task, or its prompts, ``(d, N)``."""
        batch = next(data.batches(self.samples, seed=task.index))
        prompts = batch.prompts.to(self.model.device)
        positions = torch.arange(prompts.shape[1], device=prompts.device)
        words = positions <= prompts.argmax(dim=1, keepdim=True)
        for part, memory in self._parts():
            columns = Columns()
            with observing({part.receiver: columns}, words if part.text else None):
                if part.text:
                    self.model.encode_text(prompts)
                else:
                    self.model.encode_image(batch.images)
            yield part, memory, columns.take()

    def _conceptor(self, x: Tensor) -> Tensor:
        return conceptor(x, self.aperture, self.threshold, self.gain)

    def _start(self, size: int) -> Tensor:
        """What a map starts from."""
        if not self.as_released:
            return torch.eye(size)
        return linear_start((size, size), self.draws.generator)

    def _tasks_of(self, candidates: ClassTexts) -> list[int]:
        """The task of each candidate, -1 if it was not learned or has no maps."""
        owners = dict(zip(self.ids.tolist(), self.owners.tolist(), strict=True))
        mapped = {task for part in self.inputs for task in part.transfer.tasks.tolist()}
        tasks = [owners.get(number, -1) for number in candidates.ids]
        return [task if task in mapped else -1 for task in tasks]

    @contextmanager
    def _maps_of(self, task: int) -> Iterator[None]:
        """While open, the model has the maps of a task."""
        for part in self.inputs:
            part.transfer.choose(task)
        try:
            yield
        finally:
            for part in self.inputs:
                part.transfer.choose(None)


@dataclass(frozen=True)
class AdaptedInput:
    """An input of attention weights.

    Attributes:
        receiver: the module that receives it.
        text: whether it is in the text encoder.
        weights: all that it is multiplied with, ``(out, in)``.
        transfer: maps of it.
    """

    receiver: nn.Module
    text: bool
    weights: Sequence[Tensor]
    transfer: Transfer


class Columns:
    """Features, kept one and all."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def add(self, features: Tensor) -> None:
        """Add features ``(B, L, d)`` or ``(n, d)``."""
        self._parts.append(features.reshape(-1, features.shape[-1]))

    def take(self) -> Tensor:
        """All of them as columns ``(d, N)``, float64."""
        return torch.cat(self._parts).T.double()
