"""GNSP: gradients projected onto the null space of earlier tasks' features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast, final

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.draws import Draws
from clbench.clip.losses import alignment, classification, distillation
from clbench.clip.reference import Reference
from clbench.clip.subspaces.memory import FeatureMemory, collecting
from clbench.core.data import Batch, TaskData
from clbench.core.method import Footprint, Method
from clbench.core.task import Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP

GRAM_BATCH = 16
"""Images whose features are scaled together, as released."""
PASS_BATCH = 4 * GRAM_BATCH
"""Images that are encoded together to collect their features."""


@final
class GNSP(Method):
    """Train image-encoder weights only where features of earlier tasks have no energy.

    Loss, on a training batch and ``reference_batch`` image-caption pairs (I, C):
    ``L = CE + distillation (D(Z_0, Z) + D(Z_0^T, Z^T)) + alignment (CE(Z, Y) + CE(Z^T, Y))``
    with ``Z = s f(I) g(C)^T``, ``Z_0`` the same under the initial CLIP, D the softened
    cross-entropy, and ``Y`` sharing the target among equal captions. The first task trains
    everything but the logit scale. Later tasks train the MLP weights of the image encoder and
    its output projection, with ``G <- G P``, ``P = V_n V_n^T``, where ``V_n`` spans the smallest
    eigenvalues, with less than `rho` of the sum, of the layer's memory M. After a task, one pass
    over its training set adds ``sum_b X_b^T X_b / ||X_b^T X_b||``, scaled to norm one, to M.

    Stored: the initial CLIP and the memories (about 0.6 and 0.5 GB for ViT-B/16). The reference
    pairs are drawn anew for each task and then taken in turn, each once per pass; the teacher sees
    each image of a fixed source once per run.
    From the second task on, the text encoder is frozen and its features are computed once per task.
    Without projection there are no memories, without distillation and alignment no pairs.

    As released: AdamW divides projected gradients elementwise and so leaves the null space;
    ``projection="update"`` projects the weights' change instead and does not. The memory of the
    output projection is scaled to norm one before each addition, so older tasks fade there and
    only there. Features of the pre-training are in no memory. The release collects features
    under training augmentation; here the training set is read in fixed order as it is.

    Paper: https://arxiv.org/abs/2507.19839
    """

    name: ClassVar[str] = "gnsp"
    title: ClassVar[str] = "GNSP"
    family: ClassVar[str] = "Projected gradients and steps"
    paper: ClassVar[str] = "https://arxiv.org/abs/2507.19839"
    needs: ClassVar[frozenset[str]] = frozenset({"reference-images"})

    def __init__(  # noqa: PLR0913 - the signature is the schema
        self,
        *,
        rho: Annotated[
            float,
            Field(
                gt=0,
                le=1,
                description="Share of the old features' energy that may lie in the null space.",
            ),
        ] = 0.15,
        projection: Annotated[
            Literal["gradient", "update", "none"],
            Field(
                description="What is projected: the gradient (as released), the optimizer's "
                "update, or `none` (an ablation)."
            ),
        ] = "gradient",
        temperature: Annotated[float, Field(gt=0, description="Of the distillation.")] = 2.0,
        distillation: Annotated[
            float, Field(ge=0, description="Weight of the distillation.")
        ] = 1.0,
        alignment: Annotated[
            float, Field(ge=0, description="Weight of the modality alignment.")
        ] = 0.75,
        label_smoothing: Annotated[
            float,
            Field(
                ge=0,
                lt=1,
                description="Share of the target spread evenly, in classification and alignment.",
            ),
        ] = 0.2,
        reference: Annotated[
            str,
            Field(
                description="Source of the pairs: `task` (images of the current task), "
                "`benchmark` or a folder `class/*.jpg`. The paper uses ImageNet."
            ),
        ] = "task",
        reference_count: Annotated[int, Field(ge=1, description="Pairs drawn per task.")] = 1000,
        reference_batch: Annotated[int, Field(ge=1, description="Pairs per step.")] = 64,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Keep the initial model as teacher and make room for the memories."""
        super().prepare(model)
        self.draws = Draws()
        self.pairs = Reference(model) if self.distillation or self.alignment else None
        mlps: list[Any] = [block.mlp for block in model.blocks("vision")]
        self.layers: list[nn.Linear] = [m for mlp in mlps for m in (mlp.c_fc, mlp.c_proj)]
        # The output projection is stored as in x out; all others are out x in.
        proj: nn.Parameter = model.network.visual.proj
        self.weights = [*(layer.weight for layer in self.layers), proj]
        dims = [*(layer.in_features for layer in self.layers), len(proj)]
        remembered = [] if self.projection == "none" else dims
        memories = nn.ModuleList(FeatureMemory(dim, self.rho) for dim in remembered)
        self.memories = cast("Sequence[FeatureMemory]", memories)
        self.learned = self.external = 0
        self._before: list[Tensor] = []
        self._declare_trained()

    def begin_task(self, task: Task, data: TaskData) -> None:
        """Choose what trains, find the null spaces and let the teacher score new pairs."""
        self._declare_trained()
        if self.learned:
            FeatureMemory.split_all(self.memories)
        if self.pairs is None:
            return
        pairs = data.reference_pairs(self.reference, self.reference_count, self.draws.seed())
        self.external = 0 if self.reference == "task" else pairs.nbytes
        self.pairs.set_pairs(pairs)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Classification, distillation and modality alignment."""
        if self.pairs is None:
            return {"classification": classification(self.model, batch, self.label_smoothing)}
        pairs = self.pairs.take(self.reference_batch)
        captions = self.model.text_features(self.pairs.tokens, pairs.captions)[pairs.labels]
        prompts = self.model.text_features(batch.prompts)
        own, reference = self.model.encode_together(batch.images, pairs.images)
        scores = self.model.similarities(own, prompts)
        z = self.model.similarities(reference, captions)
        distilled = distillation(pairs.teacher_logits, z, self.temperature)
        return {
            "classification": F.cross_entropy(
                scores, batch.labels, label_smoothing=self.label_smoothing
            ),
            "distillation": self.distillation * distilled,
            "alignment": self.alignment * alignment(z, pairs.labels, self.label_smoothing),
        }

    def after_backward(self) -> None:
        """Project the gradients, or remember the weights that the step starts from."""
        if not self.learned or self.projection == "none":
            return
        if self.projection == "update":
            self._before = [weight.detach().clone() for weight in self.weights]
            return
        for i, weight in enumerate(self.weights):
            if weight.grad is not None:
                weight.grad.copy_(self._projected(i, weight.grad))

    @torch.no_grad()
    def after_step(self) -> None:
        """Project the step that the optimizer took."""
        if not self.learned or self.projection != "update":
            return
        for i, (weight, before) in enumerate(zip(self.weights, self._before, strict=True)):
            weight.copy_(before + self._projected(i, weight - before))
        self._before = []

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Add the task's features to the memories."""
        if self.memories:
            self._remember(data)
        self.learned += 1
        if self.pairs is not None:
            self.pairs.clear()

    def footprint(self) -> Footprint:
        """The teacher and the memories are stored; reference images are external data."""
        kept = [memory.gram for memory in self.memories]
        if self.pairs is not None:
            kept += self.pairs.teacher.parameters()
        stored = sum(tensor.nbytes for tensor in kept)
        return Footprint(self.trainable_parameters(), 0, stored, self.external)

    def get_extra_state(self) -> dict[str, int]:
        """Number of learned tasks and bytes of external data."""
        return {"learned": self.learned, "external": self.external}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up where the state was saved."""
        self.learned, self.external = state["learned"], state["external"]
        self._declare_trained()

    def _declare_trained(self) -> None:
        """Train all in the first task, then the protected weights only."""
        self.model.requires_grad_(not self.learned)
        self.model.logit_scale.requires_grad_(False)
        for weight in self.weights:
            weight.requires_grad_(True)

    def _remember(self, data: TaskData) -> None:
        """One pass over the training set."""
        inputs = zip(self.layers, self.memories, strict=False)
        class_token = (self.model.network.visual.ln_post, self.memories[-1])
        with collecting(inputs, class_token, GRAM_BATCH):
            for batch in data.batches(PASS_BATCH):
                self.model.encode_image(batch.images)
        for memory in self.memories:
            memory.commit(rescale=memory is self.memories[-1])

    def _projected(self, i: int, matrix: Tensor) -> Tensor:
        """A matrix shaped like weight `i`, with its feature side projected."""
        transposed = i == len(self.weights) - 1
        rows = self.memories[i].project(matrix.T if transposed else matrix)
        return rows.T if transposed else rows
