"""VPT-NSP: visual prompts whose updates stay in the null space of what earlier tasks ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from clbench.clip.adapters.prompts import Prompts, add_prompts, queries_of, shares_of_prompts
from clbench.clip.draws import Draws
from clbench.clip.growing import let_grow
from clbench.clip.layers.attention import SplitAttention
from clbench.clip.subspaces.gaussians import Gaussians
from clbench.core.data import Batch, TaskData
from clbench.core.errors import ClbenchError
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Footprint, Method
from clbench.core.task import Task
from clbench.core.training import TrainingPlan, trained_parameters

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

PASS_BATCH: Final = 64
JITTER: Final = 1e-4
"""On the diagonal of the covariances."""
GROUP: Final = 32
"""Classes whose drawn features are in memory together."""
REFINE_BATCH: Final = 256
SMOOTHED_FROM: Final = 128
"""Singular values from which a spectrum is smoothed before its bend is looked for."""
SIGMA: Final = 10
RADIUS: Final = 4 * SIGMA
TRIMMED: Final = 0.03
"""Share of a smoothed spectrum where no bend is looked for, half at each end."""
Share = Annotated[float, Field(ge=0, le=1)]


@final
class VPTNSP(Method):
    """Train prompts of the image encoder's first blocks within a null space.

    For image tokens with queries ``Q``, prompts P change nothing that earlier tasks see if
    ``Q W_k`` meets no change of P and the attention S to the prompts, weighed, sums to none. After
    each task the second moments of the rows of ``Q W_k`` and S are added up, M_1 and M_2. With
    their null directions U, from where the spectrum bends,
    ``P_i = eta U_i U_i^T + (1 - eta) I``, and every update u of the optimizer becomes
    ``P_2 u P_1``. Mean and standard deviation of each prompt are held where they were.

    After a task, features are drawn from a normal distribution per class seen, and the image
    encoder's projection is refined on them; the text encoder is frozen.

    Stored: M_1 and M_2 of each block; text features, mean and root of the covariance per class.

    Paper: https://arxiv.org/abs/2406.05658
    """

    name: ClassVar[str] = "vpt_nsp"
    title: ClassVar[str] = "VPT-NSP"
    family: ClassVar[str] = "Projected gradients and steps"
    paper: ClassVar[str] = "https://arxiv.org/abs/2406.05658"
    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end"})
    transient: ClassVar[frozenset[str]] = frozenset({"projections", "anchors", "texts"})

    moments: Tensor
    """M_1 of every block, ``(N, D, D)``; zeros before a task has ended."""
    share_moments: Tensor
    """M_2 of every block, ``(N, prompts, prompts)``."""
    learned: Tensor
    """Text features of the classes that `gaussians` holds, ``(K, E)``."""

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        prompts: Annotated[int, Field(ge=1, description="Prompts per block.")] = 4,
        depth: Annotated[
            int, Field(ge=1, description="Blocks of the image encoder with prompts, the first.")
        ] = 4,
        eta_queries: Annotated[
            Share, Field(description="Weight of the null space of queries and key weights.")
        ] = 0.98,
        eta_shares: Annotated[
            Share, Field(description="Weight of the null space of the attention to prompts.")
        ] = 0.98,
        offset: Annotated[
            float,
            Field(
                description="Shifts the first null direction: below 1 by a share of those that "
                "follow, else by a number of directions; negative ones make the null space larger."
            ),
        ] = 0.0,
        statistics: Annotated[
            float,
            Field(ge=0, description="Weight of the distance to the earlier prompts' statistics."),
        ] = 1.0,
        refine_epochs: Annotated[
            int, Field(ge=0, description="Passes that refine the image encoder's projection.")
        ] = 50,
        refine_samples: Annotated[
            int, Field(ge=1, description="Features drawn per class and pass.")
        ] = 256,
        refine_lr: Annotated[float, Field(gt=0, description="Learning rate of refining.")] = 1e-3,
        stepped: Annotated[
            bool,
            Field(
                description="The learning rate falls to a tenth after half and again after four "
                "fifths of the task, as published, instead of by the recipe's schedule."
            ),
        ] = False,
        as_released: Annotated[
            bool,
            Field(description="Projections onto null spaces are divided by their Frobenius norm."),
        ] = False,
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__()

    @property
    def answers_with_model(self) -> bool:
        """Prompts have no place in a plain CLIP."""
        return False

    def prepare(self, model: CLIP) -> None:
        """Add the prompts, which train, and make room for what is kept."""
        super().prepare(model)
        if not isinstance(model.network.visual.proj, nn.Parameter):
            raise ClbenchError(f"{self.name} refines a projection, which {model.name} lacks")
        self.draws = Draws()
        self.attentions = add_prompts(model.blocks("vision")[: self.depth], self.prompts)
        self.added = [cast(Prompts, attention.seen) for attention in self.attentions]
        for added in self.added:
            added.draw(self.draws.generator)
        width, embedding = model.network.visual.proj.shape
        count = len(self.attentions)
        self.register_buffer("moments", torch.zeros(count, width, width))
        self.register_buffer("share_moments", torch.zeros(count, self.prompts, self.prompts))
        self.gaussians = Gaussians(width, JITTER)
        self.register_buffer("learned", torch.zeros(0, embedding))
        let_grow(self, "learned")

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Find where prompts may move, and remember where they are."""
        self.texts = self.model.class_features(task.classes)
        self.projections = self.anchors = None
        if self.moments.any():
            pairs = zip(self.moments, self.share_moments, strict=True)
            self.projections = [(self._onto(m, True), self._onto(s, False)) for m, s in pairs]
            self.anchors = [added.tokens.detach().clone() for added in self.added]

    def optimizer(self, plan: TrainingPlan) -> Optimizer | tuple[Optimizer, LRScheduler]:
        """The recipe's, or with its rate in steps."""
        optimizer = plan.optimizer(trained_parameters(self))
        if not self.stepped:
            return optimizer
        return optimizer, MultiStepLR(optimizer, [plan.steps // 2, plan.steps * 4 // 5])

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among the task's classes, and how far the prompts' statistics moved."""
        logits = self.model.similarities(self.model.encode_image(batch.images), self.texts)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        terms = {"classification": loss}
        if self.anchors is not None and self.statistics:
            now = _statistics(torch.cat([added.tokens for added in self.added]))
            moved = (now - _statistics(torch.cat(self.anchors))).abs().mean(dim=1).sum()
            terms["statistics"] = self.statistics * moved
        return terms

    def after_backward(self) -> None:
        """Remember the prompts before the optimizer's step."""
        if self.projections is not None:
            self._before = [added.tokens.detach().clone() for added in self.added]

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep of the update what lies in the null spaces."""
        if self.projections is None:
            return
        parts = zip(self.added, self._before, self.projections, strict=True)
        for added, before, (first, second) in parts:
            added.tokens.copy_(before + second @ (added.tokens - before) @ first)
        del self._before

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Add up the moments, fit the classes' distributions, and refine the projection."""
        features, labels = self._observe(data)
        for label, text in enumerate(self.model.class_features(task.classes)):
            own = features[labels == label]
            if len(own):
                self.gaussians.add(own)
                self.learned = torch.cat([self.learned, text[None].to(self.learned)])
        with torch.enable_grad():
            self._refine()

    def footprint(self) -> Footprint:
        """The tested model has the prompts beyond the backbone."""
        added = sum(added.tokens.numel() for added in self.added)
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)

    def _onto(self, moment: Tensor, queries: bool) -> Tensor:
        eta = self.eta_queries if queries else self.eta_shares
        return null_projection(moment, eta, self.offset, normalised=self.as_released)

    def _observe(self, data: TaskData) -> tuple[Tensor, Tensor]:
        """Add the moments of a task's images; their features before the projection, and labels.

        Returns:
            ``(n, D)`` and ``(n,)``.
        """
        features: list[Tensor] = []
        labels: list[Tensor] = []

        def add(index: int, attention: SplitAttention, x: Tensor) -> None:
            share = len(x) / PASS_BATCH  # a smaller last batch counts for less
            queries, weight = queries_of(attention, x), attention.k_proj.weight
            self.moments[index] += share * key_moment(queries, weight)
            self.share_moments[index] += share * second_moment(shares_of_prompts(attention, x))

        def keep(_: nn.Module, __: Any, output: Tensor) -> None:
            # open_clip pools either before or after the last norm.
            features.append(output if output.dim() == 2 else output[:, 0])

        handles = [self.model.network.visual.ln_post.register_forward_hook(keep)]
        handles += [
            attention.register_forward_pre_hook(lambda own, args, i=index: add(i, own, args[0]))
            for index, attention in enumerate(self.attentions)
        ]
        try:
            with torch.autocast(self.model.device.type, enabled=False):
                for batch in data.batches(PASS_BATCH):
                    self.model.encode_image(batch.images)
                    labels.append(batch.labels)
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat(features), torch.cat(labels).to(features[0].device)

    def _refine(self) -> None:
        """Train the projection on features drawn for all classes, among all of them."""
        projection = self.model.network.visual.proj
        trained = projection.detach().clone().requires_grad_(True)
        optimizer = SGD([trained], lr=self.refine_lr, momentum=0.9, weight_decay=1e-4)
        generator = torch.Generator(trained.device).manual_seed(self.draws.seed())
        for _ in range(self.refine_epochs):
            order = torch.randperm(len(self.gaussians), generator=self.draws.generator)
            for group in order.split(GROUP):
                mixed = torch.randperm(
                    len(group) * self.refine_samples, generator=self.draws.generator
                )
                which = group.repeat_interleave(self.refine_samples)[mixed].to(trained.device)
                drawn = self.gaussians.sample(which, generator)
                parts = zip(drawn.split(REFINE_BATCH), which.split(REFINE_BATCH), strict=True)
                for x, y in parts:
                    optimizer.zero_grad()
                    features = F.normalize(x @ trained, dim=-1)
                    F.cross_entropy(self.model.similarities(features, self.learned), y).backward()
                    optimizer.step()
        projection.data.copy_(trained.detach())


def second_moment(rows: Tensor) -> Tensor:
    """``X^T X / n`` of ``(..., d)`` features, ``(d, d)``."""
    x = rows.reshape(-1, rows.shape[-1])
    return x.T @ x / len(x)


def key_moment(queries: Tensor, weight: Tensor) -> Tensor:
    """Second moment of ``q_h W_h`` over images, heads and tokens.

    Args:
        queries: ``(B, heads, L, D / heads)``.
        weight: ``(D, D)`` of the keys, whose rows belong to the heads in turn.

    Returns:
        ``(D, D)``.
    """
    heads = queries.shape[1]
    per_head = weight.view(heads, -1, weight.shape[1])
    grams = torch.einsum("bhli,bhlj->hij", queries, queries)
    total: Tensor = (per_head.transpose(1, 2) @ grams @ per_head).sum(dim=0)
    return total / (queries.numel() // queries.shape[-1])


def null_projection(moment: Tensor, eta: float, offset: float, *, normalised: bool) -> Tensor:
    """``eta U U^T + (1 - eta) I`` with the null directions U of a second moment ``(d, d)``.

    Args:
        moment: symmetric.
        eta: share of the projection.
        offset: see `first_null`.
        normalised: divide ``U U^T`` by its Frobenius norm.
    """
    values, vectors = torch.linalg.eigh(moment.double())
    spectrum = values.clamp_min(0).flip(0)
    null = vectors.flip(1)[:, first_null(spectrum.to(moment.dtype), offset) :]
    onto = null @ null.T
    if normalised:
        onto /= onto.norm()
    eye = torch.eye(len(moment), dtype=onto.dtype, device=onto.device)
    projection: Tensor = eta * onto + (1 - eta) * eye
    return projection.to(moment.dtype)


def first_null(spectrum: Tensor, offset: float = 0.0) -> int:
    """From which singular value on directions count as null: where the spectrum bends most.

    The bend is where the second difference is largest; long spectra are smoothed before, and
    their ends left out.

    Args:
        spectrum: ``(n,)``, descending; n of at least 3, or the last direction is the null space.
        offset: from 0 to below 1, a share of the null directions that are given up; else so many
            directions, negative ones are gained.
    """
    count = len(spectrum)
    if count < 3:
        return count - 1
    curve, cut = spectrum, 0
    if count >= SMOOTHED_FROM:
        curve, cut = _smoothed(spectrum), int(TRIMMED * count / 2)
    bends = curve.diff(n=2)
    bends = bends[cut : len(bends) - cut]
    bend = int(bends.argmax()) + (count - len(bends)) // 2
    first = int((spectrum >= spectrum[bend]).nonzero()[-1])
    if 0 <= offset < 1:
        return min(first + int(offset * (count - first)), count - 1)
    return min(max(first + int(offset), 0), count - 1)


def _smoothed(spectrum: Tensor) -> Tensor:
    """Filtered by a Gaussian, mirrored at the ends."""
    places = torch.arange(-RADIUS, RADIUS + 1, device=spectrum.device).double()
    kernel = (-0.5 * (places / SIGMA).square()).exp()
    ends = spectrum.double()
    padded = torch.cat([ends[:RADIUS].flip(0), ends, ends[-RADIUS:].flip(0)])
    filtered = F.conv1d(padded[None, None], (kernel / kernel.sum())[None, None])[0, 0]
    return filtered.to(spectrum.dtype)


def _statistics(prompts: Tensor) -> Tensor:
    """Mean and standard deviation of each prompt, ``(2, n)``."""
    return torch.stack([prompts.mean(dim=1), prompts.std(dim=1)])
