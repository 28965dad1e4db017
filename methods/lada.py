"""LADA: vectors per class beside a frozen image encoder, and texts tuned task by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.draws import Draws, linear_start
from clbench.clip.growing import let_grow
from clbench.clip.heads import encoded, matches
from clbench.clip.layers.together import declare
from clbench.core.data import Batch, TaskData
from clbench.core.hyperparameters import LabelSmoothing
from clbench.core.method import Footprint, Method
from clbench.core.task import ClassTexts, Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

PASS_BATCH: Final = 256
ROUNDS: Final = 50
"""Most rounds of k-means and of the fit of a mixture."""
LEAST_VARIANCE: Final = 1e-6


@final
class LADA(Method):
    """Give every class memory units in the space of frozen image features, and a text of its own.

    With f the unit-length image feature and t_c the text feature of class c,
    ``z_c = s f . t_c + alpha sum_u exp(-beta (1 - w_cu . f))``. The units w of a class start at
    the k-means centres of its features. A task trains those of its classes, and adapters in the
    text encoder, by the cross-entropy of z among all classes learned so far; afterwards its units
    and the features of its texts stay as they are, and the adapters are taken out.

    Earlier classes stand in the loss by prototypes ``p + e sqrt(v)``, e drawn anew at every step:
    p and v are means and variances of a mixture of spherical Gaussians of each class's features.

    Classes that were not learned are scored with their text under zero-shot CLIP alone.

    Stored: units, means, variances and a text feature per class.

    Paper: https://arxiv.org/abs/2505.23271
    """

    name: ClassVar[str] = "lada"
    title: ClassVar[str] = "LADA"
    family: ClassVar[str] = "Classifiers on features"
    paper: ClassVar[str] = "https://arxiv.org/abs/2505.23271"
    disjoint_classes: ClassVar[bool] = True
    traits: ClassVar[frozenset[str]] = frozenset({"answers-change-at-end"})

    units: nn.Parameter
    """Units of the present task's C classes, ``(C, U, D)``; none between tasks."""

    def __init__(
        self,
        *,
        units_per_class: Annotated[int, Field(ge=1, description="Memory units of a class.")] = 16,
        beta: Annotated[
            float, Field(gt=0, description="How fast a unit's score falls with the distance.")
        ] = 1.0,
        alpha: Annotated[
            float, Field(ge=0, description="Weight of the units beside the text.")
        ] = 1.0,
        components: Annotated[
            int, Field(ge=1, description="Gaussians by which a class is remembered.")
        ] = 4,
        normalise_prototypes: Annotated[
            bool, Field(description="Bring prototypes to unit length after noise was added.")
        ] = False,
        bottleneck: Annotated[
            int, Field(ge=1, description="Width of the adapters in the text encoder.")
        ] = 64,
        adapter_scale: Annotated[
            float, Field(gt=0, description="Factor of the adapters' output.")
        ] = 0.1,
        label_smoothing: LabelSmoothing = 0.0,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Put adapters into the text encoder, and make room for classes."""
        super().prepare(model)
        self.draws = Draws()
        self.adapters: list[AdaptedMLP] = []
        for block in model.blocks("text"):
            inner: Any = block
            width = inner.mlp.c_fc.in_features
            inner.mlp = AdaptedMLP(inner.mlp, width, self.bottleneck, self.adapter_scale)
            self.adapters.append(inner.mlp)
        width = model.network.visual.output_dim
        self.memory = ClassMemory(self.units_per_class, self.components, width)
        self.units = nn.Parameter(torch.zeros(0, self.units_per_class, width))
        let_grow(self, "units")

    @torch.no_grad()
    def begin_task(self, task: Task, data: TaskData) -> None:
        """Start units at the centres of the task's features, and adapters at nothing."""
        centres = [
            k_means(rows, self.units_per_class, self.draws.generator)[0]
            for rows in self._by_class(task, data)
        ]
        self.units = nn.Parameter(torch.stack(centres))
        for adapter in self.adapters:
            adapter.start(self.draws.generator)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy among all classes so far: of images, and of earlier classes' prototypes."""
        memory = self.memory
        texts = torch.cat([memory.texts, self.model.text_features(batch.prompts)])
        units = torch.cat([memory.units, self.units])
        known = len(memory.ids)
        scores = self._scores(self.model.encode_image(batch.images), texts, units)
        terms = {"classification": self._cross_entropy(scores, known + batch.labels)}
        if known:
            prototypes = augmented(
                memory.means, memory.variances, self._noise(), self.normalise_prototypes
            )
            owners = torch.arange(known, device=texts.device).repeat_interleave(self.components)
            scores = self._scores(prototypes, texts, units)
            terms["prototypes"] = self._cross_entropy(scores, owners)
        return terms

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Keep units and texts of the task's classes, fit their mixtures, take the adapters out."""
        fits = [
            spherical_mixture(rows, self.components, self.draws.generator)
            for rows in self._by_class(task, data)
        ]
        self.memory.add(
            task.classes.ids,
            units=self.units.detach(),
            texts=self.model.class_features(task.classes),
            means=torch.stack([means for means, _ in fits]),
            variances=torch.stack([variances for _, variances in fits]),
        )
        self.units = nn.Parameter(self.units[:0].detach().clone())
        for adapter in self.adapters:
            adapter.stop()

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """Learned classes by their units and texts, others by zero-shot CLIP's texts."""
        features = self.model.encode_image(images)
        memory = self.memory
        learned, kept = matches(candidates.ids, memory.ids).nonzero(as_tuple=True)
        texts = self.model.class_features(candidates)
        texts = texts.float().index_put((learned,), memory.texts[kept])
        logits = self.model.similarities(features, texts)
        logits[:, learned] += self.alpha * unit_scores(features, memory.units[kept], self.beta)
        return logits

    def footprint(self) -> Footprint:
        """The tested model has units and texts besides the backbone."""
        added = self.memory.units.numel() + self.memory.texts.numel()
        return Footprint(self.trainable_parameters(), added, stored=0, external=0)

    def _scores(self, features: Tensor, texts: Tensor, units: Tensor) -> Tensor:
        """The logits z of features ``(B, D)``, ``(B, K)``."""
        near: Tensor = self.alpha * unit_scores(features, units, self.beta)
        return self.model.similarities(features, texts) + near

    def _cross_entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels, label_smoothing=self.label_smoothing)

    def _noise(self) -> Tensor:
        """Standard normal, in the shape of the mixtures' means."""
        means = self.memory.means
        return torch.randn(means.shape, generator=self.draws.generator).to(means)

    def _by_class(self, task: Task, data: TaskData) -> Iterator[Tensor]:
        """Features ``(n, D)`` of each of the task's classes, its text where it has no image."""
        features, labels = encoded(self.model, data, PASS_BATCH)
        texts = self.model.class_features(task.classes).to(features)
        for label, text in enumerate(texts):
            rows = features[labels == label]
            yield rows if len(rows) else text[None]


@final
class ClassMemory(nn.Module):
    """What is kept of learned classes.

    Args:
        units: U of a class.
        components: M of a class.
        width: size D of features.
    """

    units: Tensor
    """``(K, U, D)``."""
    texts: Tensor
    """Their text features, ``(K, D)`` of unit length."""
    means: Tensor
    """``(K, M, D)``."""
    variances: Tensor
    """Per dimension, ``(K, M)``."""
    ids: Tensor
    """Their numbers in the whole benchmark, ``(K,)``."""

    def __init__(self, units: int, components: int, width: int) -> None:
        super().__init__()
        self.register_buffer("units", torch.zeros(0, units, width))
        self.register_buffer("texts", torch.zeros(0, width))
        self.register_buffer("means", torch.zeros(0, components, width))
        self.register_buffer("variances", torch.zeros(0, components))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "units", "texts", "means", "variances", "ids")

    def add(self, ids: Sequence[int], **parts: Tensor) -> None:
        """Add classes with these numbers; `parts` are units, texts, means and variances."""
        self.ids = torch.cat([self.ids, self.ids.new_tensor(ids)])
        for name, part in parts.items():
            setattr(self, name, torch.cat([getattr(self, name), part.float()]))


@declare(pure=True, idle=lambda adapted: not adapted.active)
class AdaptedMLP(nn.Module):
    """A frozen MLP with an adapter beside it, ``MLP(x) + s (U max(D x + d, 0) + u)`` (AdaptFormer).

    Args:
        base: the MLP, ``(..., width)`` to the same.
        width: of its input.
        bottleneck: rows of D.
        scale: s.

    Attributes:
        active: False between tasks, when there is no adapter.
    """

    def __init__(self, base: nn.Module, width: int, bottleneck: int, scale: float) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.active = False
        self.down = nn.Parameter(torch.zeros(bottleneck, width))
        self.down_bias = nn.Parameter(torch.zeros(bottleneck))
        self.up = nn.Parameter(torch.zeros(width, bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Apply both to ``(..., width)``."""
        y: Tensor = self.base(x)
        if not self.active:
            return y
        inner = F.linear(x, self.down, self.down_bias).relu()
        return y + self.scale * F.linear(inner, self.up, self.up_bias)

    @torch.no_grad()
    def start(self, generator: torch.Generator) -> None:
        """A new adapter, whose output is zero."""
        self.stop()
        self.down.copy_(linear_start(self.down.shape, generator))
        self.active = True

    @torch.no_grad()
    def stop(self) -> None:
        """No adapter."""
        for tensor in (self.down, self.down_bias, self.up, self.up_bias):
            tensor.zero_()
        self.active = False

    def get_extra_state(self) -> dict[str, bool]:
        """Whether there is an adapter."""
        return {"active": self.active}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        """Take up where the state was saved."""
        self.active = state["active"]


def unit_scores(features: Tensor, units: Tensor, beta: float) -> Tensor:
    """``sum_u exp(-beta (1 - w_cu . f))``, ``(B, K)``, in full precision.

    Args:
        features: ``(B, D)``.
        units: ``(K, U, D)``; they are not brought to unit length.
        beta: see above.
    """
    with torch.autocast(features.device.type, enabled=False):
        products = features.float() @ units.float().flatten(0, 1).T
    near = (-beta * (1 - products)).exp()
    return near.view(len(features), *units.shape[:2]).sum(dim=2)


def augmented(means: Tensor, variances: Tensor, noise: Tensor, normalise: bool) -> Tensor:
    """Prototypes ``p + e sqrt(v)``, class by class, ``(K M, D)``.

    Args:
        means: ``(K, M, D)``.
        variances: ``(K, M)``.
        noise: e, ``(K, M, D)``.
        normalise: whether they are brought to unit length.
    """
    prototypes = (means + noise * variances.sqrt()[:, :, None]).flatten(0, 1)
    return F.normalize(prototypes, dim=1) if normalise else prototypes


def k_means(rows: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Centres of rows by Lloyd's algorithm, which starts as k-means++ does.

    Where there are fewer rows than centres, every row is one, some of them several times.

    Args:
        rows: ``(n, D)``.
        count: number of centres.
        generator: on the CPU, decides where it starts.

    Returns:
        Centres ``(count, D)``, and the nearest one of each row, ``(n,)``.
    """
    if len(rows) <= count:
        place = torch.arange(count, device=rows.device) % len(rows)
        return rows[place], torch.arange(len(rows), device=rows.device)
    chosen = [int(torch.randint(len(rows), (), generator=generator))]
    while len(chosen) < count:
        apart = torch.cdist(rows, rows[chosen]).amin(dim=1).square().cpu()
        apart[chosen] = 0
        apart += 1e-12 * (1 - F.one_hot(torch.tensor(chosen), len(rows)).sum(dim=0))
        chosen.append(int(torch.multinomial(apart, 1, generator=generator)))
    centres = rows[chosen]
    nearest = torch.cdist(rows, centres).argmin(dim=1)
    for _ in range(ROUNDS):
        members = F.one_hot(nearest, count).to(rows.dtype)
        sizes = members.sum(dim=0)[:, None]
        centres = torch.where(sizes > 0, members.T @ rows / sizes.clamp(min=1), centres)
        now = torch.cdist(rows, centres).argmin(dim=1)
        if torch.equal(now, nearest):
            break
        nearest = now
    return centres, nearest


def spherical_mixture(
    rows: Tensor, components: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Fit a mixture of spherical Gaussians by expectation maximisation, from k-means.

    Args:
        rows: ``(n, D)``.
        components: number M of Gaussians.
        generator: see `k_means`.

    Returns:
        Means ``(M, D)``, and the variance of each per dimension, ``(M,)``.
    """
    centres, nearest = k_means(rows, components, generator)
    if len(rows) <= components:
        return centres, rows.new_zeros(components)
    data = rows.double()
    shares = F.one_hot(nearest, components).double()
    for _ in range(ROUNDS):
        sizes = shares.sum(dim=0).clamp(min=1e-9)
        means = shares.T @ data / sizes[:, None]
        apart = torch.cdist(data, means).square()
        variances = ((shares * apart).sum(dim=0) / sizes / data.shape[1]).clamp(min=LEAST_VARIANCE)
        likelihoods = (sizes / len(data)).log() - 0.5 * (
            apart / variances + data.shape[1] * variances.log()
        )
        before, shares = shares, likelihoods.softmax(dim=1)
        if torch.allclose(shares, before, atol=1e-6):
            break
    return means.to(rows), variances.to(rows)
