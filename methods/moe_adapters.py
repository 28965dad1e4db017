"""MoE-Adapters: experts in every block, a router per task, and autoencoders that know the tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn

from clbench.clip.adapters.bottleneck import attach_beside_mlps
from clbench.clip.adapters.experts import EndMarking, Experts, TextEnds
from clbench.clip.draws import Draws
from clbench.clip.growing import GrowingList, let_grow
from clbench.clip.losses import classification
from clbench.clip.weights.files import read_checkpoint
from clbench.core.data import Batch, TaskData
from clbench.core.errors import ClbenchError
from clbench.core.hyperparameters import Bottleneck, HiddenDropout, LabelSmoothing
from clbench.core.method import Footprint, Method
from clbench.core.task import ClassTexts, Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP, Encoder

SCALE: Final = 0.1
"""Factor on the output of an expert."""
BATCH: Final = 64
"""Images per step of an autoencoder."""
REFERENCE_IMAGES: Final = 2000
"""Reference images that it sees, over and over."""
KEPT: Final = 2**28
"""Numbers kept while an autoencoder is trained, at most: 1 GB, 6,200 images under AlexNet."""
WEIGHT_DECAY: Final = 1e-4
EPOCHS: Final = 10
"""Passes after which the learning rate of an autoencoder falls to a tenth."""
DROPS: Final = 6
"""After so many falls nothing changes in float32, and training ends."""
HELD_OUT: Final = 10
"""Every tenth image of a task trains no autoencoder but tells which errors are usual."""
USUAL: Final = 3
"""Standard deviations by which a usual error is above the mean of the images held out."""


@final
class MoEAdapters(Method):
    """Train a few of many adapters per task, chosen by a router of the task's own.

    Beside the MLP of every block of both encoders stand E experts, bottlenecks
    ``E_e(x) = 0.1 (U_e relu(D_e x + a_e) + b_e)``. A router per task scores them for every image
    and every text; the outputs of the two best, weighted by the softmax of their scores, are added
    to the residual stream. In training scores are noisy. After a task, the `freeze` experts of
    each block that it chose most often train no more.

    Which router an image meets is decided by autoencoders, one per task learned and one of
    reference images: the task whose autoencoder errs least has it. Where that is the reference's,
    or the error is unusual, the image is left to zero-shot CLIP. Classes have their text
    features under the same router.

    Stored: experts, routers and autoencoders.

    Paper: https://arxiv.org/abs/2403.11549
    """

    name: ClassVar[str] = "moe_adapters"
    title: ClassVar[str] = "MoE-Adapters"
    family: ClassVar[str] = "Experts and prompts"
    paper: ClassVar[str] = "https://arxiv.org/abs/2403.11549"
    needs: ClassVar[frozenset[str]] = frozenset({"reference-images"})
    traits: ClassVar[frozenset[str]] = frozenset(
        {"answers-change-at-end", "resumes-through-begin-task"}
    )

    center: Tensor
    """Mean of the reference images' features, ``(D,)``."""
    spread: Tensor
    """Their standard deviation, ``(D,)``."""

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        experts: Annotated[int, Field(ge=2, description="Experts per block.")] = 22,
        chosen: Annotated[
            int, Field(ge=1, description="Experts that are chosen for an image or a text.")
        ] = 2,
        bottleneck: Bottleneck = 64,
        dropout: HiddenDropout = 0.1,
        freeze: Annotated[
            int, Field(ge=0, description="Experts per block that are frozen after each task.")
        ] = 2,
        routing: Annotated[
            Literal["task", "shared"],
            Field(
                description="A router per task, or one for all tasks and images, as published for "
                "class-incremental learning."
            ),
        ] = "task",
        features: Annotated[
            Literal["clip", "alexnet"],
            Field(
                description="What autoencoders see of an image: zero-shot CLIP's feature, or, as "
                "published, AlexNet's last convolution."
            ),
        ] = "clip",
        code: Annotated[int, Field(ge=1, description="Hidden units of an autoencoder.")] = 16,
        autoencoder_steps: Annotated[
            int, Field(ge=1, description="Steps in which a task's autoencoder is trained.")
        ] = 300,
        reference_steps: Annotated[
            int, Field(ge=1, description="Steps in which that of reference images is trained.")
        ] = 300,
        autoencoder_lr: Annotated[float, Field(gt=0, description="Their learning rate.")] = 1e-2,
        threshold: Annotated[
            float | None,
            Field(
                gt=0,
                description="Error of an autoencoder above which an image belongs to no task; None "
                "for three standard deviations above the mean of its task.",
            ),
        ] = None,
        reference: Annotated[
            str,
            Field(
                description="Source of the reference images: `benchmark`, `imagenet` or any folder "
                "of images (the paper's is TinyImageNet)."
            ),
        ] = "benchmark",
        as_released: Annotated[
            bool,
            Field(
                description="The task is decided for a whole test batch, untrained autoencoders "
                "take part, and texts are routed by their first token, which is always the same."
            ),
        ] = False,
        label_smoothing: LabelSmoothing = 0.2,
    ) -> None:
        super().__init__()
        if self.chosen > self.experts:
            raise ClbenchError(f"method.chosen={chosen} is more than method.experts={experts}")

    @property
    def decides_by_batch(self) -> bool:  # type: ignore[override]
        """As released, where there are tasks to decide on."""
        return bool(self.as_released and self.routing == "task")

    def prepare(self, model: CLIP) -> None:
        """Put experts beside every MLP."""
        super().prepare(model)
        self.alexnet = AlexNet() if self.features == "alexnet" else None
        self.draws = Draws()
        ends = None if self.as_released else _mark_ends(model)
        attached = attach_beside_mlps(
            model, ("text", "vision"), lambda e, w: self._made(e, w, ends)
        )
        self.layers = [layer for layers in attached.values() for layer in layers]
        for layer in self.layers:
            for expert in layer.experts:
                expert.start(self.draws.generator)
        side = model.image_size
        with torch.no_grad():
            width = self._seen(torch.zeros(1, 3, side, side, device=model.device)).shape[1]
        self.register_buffer("center", torch.zeros(0))
        self.register_buffer("spread", torch.zeros(0))
        let_grow(self, "center", "spread")
        self.autoencoders = GrowingList(lambda: Autoencoder(width, self.code).to(model.device))
        self.external = 0
        self._send(None)

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Add a router to every block, and train the reference autoencoder before the first."""
        count = task.count if self.as_released else task.index + 1
        route = task.index
        if self.routing == "shared":
            count, route = 1, 0
        elif not len(self.autoencoders):
            self._learn_reference(data)
        for layer in self.layers:
            while len(layer.routers) < count:
                layer.routers.grow()
            layer.train_with(route)
        while self.routing == "task" and len(self.autoencoders) < 1 + count:
            self._autoencoder()
        self._send(route)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes."""
        return {"classification": classification(self.model, batch, self.label_smoothing)}

    def end_task(self, task: Task, data: TaskData) -> None:
        """Freeze the experts that were chosen most often, and train the task's autoencoder."""
        for layer in self.layers:
            layer.freeze(self.freeze)
        self._send(None)
        if self.routing == "task":
            seen = self._pool(data, self.autoencoder_steps * BATCH)
            self._learn(self._autoencoders()[1 + task.index], seen, self.autoencoder_steps)

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """The logits of each image under the router of its task, or of zero-shot CLIP."""
        if self.routing == "shared":
            route = 0 if len(self.layers[0].routers) else None
            with self._sent(route):
                return super().classify(images, candidates)
        tasks = self.tasks_of(images)
        logits = torch.zeros(len(images), len(candidates), device=self.model.device)
        for task in tasks.unique().tolist():
            rows = (tasks == task).nonzero()[:, 0]
            with self._sent(None if task < 0 else task):
                found = super().classify(images[rows.to(images.device)], candidates)
            logits[rows] = found.to(logits)
        return logits

    @torch.no_grad()
    def tasks_of(self, images: Tensor) -> Tensor:
        """The task that each image seems to belong to, ``(B,)``; -1 for none.

        Args:
            images: ``(B, 3, H, W)``.
        """
        autoencoders = self._autoencoders()
        if not len(autoencoders):
            return torch.full((len(images),), -1, device=self.model.device)
        with self._sent(None):
            z = self._standardised(self._seen(images))
        errors = torch.stack([autoencoder.errors(z) for autoencoder in autoencoders])
        limits = torch.stack([autoencoder.limit for autoencoder in autoencoders])
        if self.threshold is not None:
            limits = torch.full_like(limits, self.threshold)
        return choose_tasks(errors, limits, together=self.as_released)

    def footprint(self) -> Footprint:
        """Experts, routers and autoencoders are part of the tested model."""
        parts = [*self.layers, self.autoencoders]
        added = sum(p.numel() for part in parts for p in part.parameters())
        return Footprint(self.trainable_parameters(), added, stored=0, external=self.external)

    def get_extra_state(self) -> dict[str, int]:
        """Bytes of external data."""
        return {"external": self.external}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up where the state was saved."""
        self.external = state["external"]

    def _made(self, encoder: Encoder, width: int, ends: TextEnds | None) -> Experts:
        return Experts(
            width,
            self.bottleneck,
            self.experts,
            self.chosen,
            SCALE,
            self.dropout,
            ends if encoder == "text" else None,
        )

    def _send(self, route: int | None) -> None:
        """Let all blocks use a router, or none."""
        for layer in self.layers:
            layer.route = route

    @contextmanager
    def _sent(self, route: int | None) -> Iterator[None]:
        """While open, all blocks use a router, or none."""
        before = self.layers[0].route
        self._send(route)
        try:
            yield
        finally:
            self._send(before)

    def _autoencoders(self) -> Sequence[Autoencoder]:
        return cast("Sequence[Autoencoder]", self.autoencoders)

    def _autoencoder(self) -> Autoencoder:
        """One more autoencoder, not yet trained."""
        autoencoder = cast("Autoencoder", self.autoencoders.grow())
        autoencoder.start(self.draws.generator)
        return autoencoder

    def _learn_reference(self, data: TaskData) -> None:
        """Find the mean and the spread of reference images, and train an autoencoder on them."""
        stream = data.reference_stream(self.reference, "task", self.draws.seed())
        self.external = 0 if self.reference == "task" else stream.nbytes
        seen = torch.cat(
            [self._seen(stream.images(i, BATCH)) for i in range(REFERENCE_IMAGES // BATCH)]
        )
        if self.features == "clip":
            self.center, self.spread = seen.mean(dim=0), seen.std(dim=0).clamp_min(1e-6)
        self._learn(self._autoencoder(), self._standardised(seen), self.reference_steps)

    def _learn(self, autoencoder: Autoencoder, z: Tensor, steps: int) -> None:
        """Train an autoencoder on standardised features, and find which errors are usual."""
        held_out = torch.arange(len(z)) % HELD_OUT == HELD_OUT - 1
        if self.threshold is None and held_out.any():
            usual, z = z[held_out.to(z.device)], z[~held_out.to(z.device)]
        else:
            usual = z
        train_autoencoder(autoencoder, z.split(BATCH), steps, self.autoencoder_lr)
        with torch.no_grad():
            errors = torch.cat([autoencoder.errors(part) for part in usual.split(BATCH)])
        autoencoder.limit.copy_(errors.mean() + USUAL * errors.std(correction=0))

    @torch.no_grad()
    def _pool(self, data: TaskData, count: int) -> Tensor:
        """Standardised features of `count` random images of a task, or of as many as fit."""
        parts: list[Tensor] = []
        found = 0
        for batch in data.batches(BATCH, seed=self.draws.seed()):
            parts.append(self._standardised(self._seen(batch.images)))
            found += len(batch.labels)
            if found >= min(count, KEPT // parts[0].shape[1]):
                break
        return torch.cat(parts)

    @torch.no_grad()
    def _seen(self, images: Tensor) -> Tensor:
        """What autoencoders see of images, ``(B, D)``, before it is standardised."""
        with torch.autocast(self.model.device.type, enabled=False):
            if self.alexnet is None:
                return self.model.encode_image(images)
            images = images.to(self.model.device)
            if not images.is_floating_point():
                images = (images / 255 - self.model.mean) / self.model.std
            return self.alexnet.features(images)

    def _standardised(self, seen: Tensor) -> Tensor:
        """Features in (0, 1): their sigmoid, those of CLIP with the reference's mean and spread."""
        if len(self.center):
            seen = (seen - self.center) / self.spread
        return seen.sigmoid()


@final
class Autoencoder(nn.Module):
    """``z' = sigmoid(W_2 relu(W_1 z + b_1) + b_2)`` for features z in (0, 1).

    Args:
        width: size of z.
        code: hidden units.
    """

    limit: Tensor
    """Largest usual error, ``()``."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.utils.skip_init(nn.Linear, width, code)
        self.decoder = nn.utils.skip_init(nn.Linear, code, width)
        self.register_buffer("limit", torch.tensor(torch.inf))
        self.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        """Reconstruct ``(B, D)``."""
        decoded: Tensor = self.decoder(self.encoder(z).relu())
        return decoded.sigmoid()

    def errors(self, z: Tensor) -> Tensor:
        """Mean squared differences between z ``(B, D)`` and its reconstruction, ``(B,)``."""
        with torch.autocast(z.device.type, enabled=False):
            errors: Tensor = (self(z) - z).square().mean(dim=1)
            return errors

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """Draw all tensors on the CPU, as linear layers of PyTorch are drawn."""
        for layer in (self.encoder, self.decoder):
            bound = 1 / math.sqrt(layer.in_features)
            for parameter in layer.parameters():
                drawn = torch.empty(parameter.shape)
                parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))


def train_autoencoder(
    autoencoder: Autoencoder, batches: Sequence[Tensor], steps: int, lr: float
) -> list[float]:
    """Minimise the error by Adam on batches in turn; the rate falls tenfold every ten passes.

    Args:
        autoencoder: trained in place, frozen before and after.
        batches: standardised features, each ``(B, D)``.
        steps: how many at most; after sixty passes nothing changes any more.
        lr: learning rate of the first ten passes.

    Returns:
        The error of each batch before its step.
    """
    errors: list[Tensor] = []
    autoencoder.requires_grad_(True)
    parameters = [*autoencoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=lr, weight_decay=WEIGHT_DECAY, fused=True)
    with torch.enable_grad():
        for step in range(min(steps, DROPS * EPOCHS * len(batches))):
            optimizer.param_groups[0]["lr"] = lr * 0.1 ** (step // len(batches) // EPOCHS)
            error = autoencoder.errors(batches[step % len(batches)]).mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            errors.append(error.detach())
    autoencoder.zero_grad()
    autoencoder.requires_grad_(False)
    return torch.stack(errors).tolist()


def choose_tasks(errors: Tensor, limits: Tensor, *, together: bool) -> Tensor:
    """The tasks of images, by the autoencoder that errs least, ``(B,)``; -1 for none.

    >>> errors = torch.tensor([[0.3, 0.2, 0.9], [0.2, 0.3, 0.8]])
    >>> choose_tasks(errors, torch.tensor([0.5, 0.5]), together=False)
    tensor([ 0, -1, -1])

    Args:
        errors: ``(A, B)``; autoencoder 0 is the reference's and j + 1 that of task j.
        limits: ``(A,)`` errors above which an image belongs to no task.
        together: take the mean errors of all images, so that all have the same task.
    """
    if together:
        errors = errors.mean(dim=1, keepdim=True).expand_as(errors)
    best = errors.argmin(dim=0)
    smallest = errors.gather(0, best[None])[0]
    return torch.where(smallest > limits[best], -1, best - 1)


class AlexNet:
    """AlexNet's convolutions with torchvision's ImageNet weights; frozen, and no part of a state.

    Raises:
        ClbenchError: the weights are not there.
    """

    LAYERS: Final = 11
    """Up to the fifth convolution, without what follows it."""

    def __init__(self) -> None:
        from torchvision.models import AlexNet_Weights, alexnet  # takes seconds

        url = AlexNet_Weights.IMAGENET1K_V1.url
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
        if not path.is_file():
            raise ClbenchError(
                f"method.features=alexnet needs torchvision's weights: put {url} at {path}, or "
                "leave method.features=clip"
            )
        state = read_checkpoint(path).state
        convolutions = {
            name.removeprefix("features."): tensor
            for name, tensor in state.items()
            if name.startswith("features.")
        }
        with torch.device("meta"):
            network = alexnet()
        network.features.load_state_dict(convolutions, assign=True)
        self._layers = network.features[: self.LAYERS].eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """Flattened features ``(B, D)`` of ``(B, 3, H, W)``; D is 43,264 at 224 pixels."""
        seen: Tensor = self._layers.to(images.device)(images)
        return seen.flatten(1)


def _mark_ends(model: CLIP) -> TextEnds:
    """Let the token embedding of a model note where texts end."""
    ends = TextEnds()
    name, embedding = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Embedding))
    model.replace(name, EndMarking(embedding, ends))
    return ends
