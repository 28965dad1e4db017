"""A ridge-regression head on frozen image features: learns every task in one pass, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, final

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.growing import let_grow
from clbench.core.data import Batch, TaskData
from clbench.core.method import Method
from clbench.core.task import ClassTexts, Task

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


@final
class RidgeHead(Method):
    """Regress classes on frozen image features; zero-shot CLIP where nothing was learned.

    With the features f of all images so far, ``G = sum f f^T`` and ``s_c = sum of f in class c``,
    the score of a learned class is ``r_c(x) = f(x)^T (G + ridge I)^-1 s_c``. Both sums grow image
    by image, so the order of the tasks does not matter. Zero-shot CLIP says how probable it is
    that the class is one of the learned candidates, and the softmax of ``r_c / temperature``
    says which of them.

    Paper: https://arxiv.org/abs/2307.02251 (RanPAC, without its random projection)
    """

    name: ClassVar[str] = "ridge-head"
    paper: ClassVar[str] = "https://arxiv.org/abs/2307.02251"
    traits: ClassVar[frozenset[str]] = frozenset({"trains-nothing", "compares-candidates"})

    gram: Tensor
    """G, ``(D, D)`` float64."""
    sums: Tensor
    """s, ``(K, D)`` float64, a row per class learned."""
    ids: Tensor
    """The numbers of these classes in the whole benchmark, ``(K,)``."""

    def __init__(
        self,
        *,
        ridge: Annotated[float, Field(gt=0, description="Strength of the regularisation.")] = 1.0,
        temperature: Annotated[
            float, Field(gt=0, description="Of the softmax over the learned classes.")
        ] = 0.1,
    ) -> None:
        super().__init__()

    def prepare(self, model: CLIP) -> None:
        """Make room for the sums."""
        super().prepare(model)
        width = model.network.visual.output_dim
        self.register_buffer("gram", torch.zeros(width, width, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(0, width, dtype=torch.float64))
        self.register_buffer("ids", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "sums", "ids")

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Nothing to minimise."""
        return {}

    @torch.no_grad()
    def end_task(self, task: Task, data: TaskData) -> None:
        """Add the task's features to the sums."""
        sums = self.gram.new_zeros(len(task.classes), len(self.gram))
        for batch in data.batches(256):
            features = self.model.encode_image(batch.images).double()
            self.gram += features.T @ features
            sums += F.one_hot(batch.labels, len(sums)).double().T @ features
        self.sums = torch.cat([self.sums, sums])
        self.ids = torch.cat([self.ids, torch.tensor(task.classes.ids, device=sums.device)])

    def classify(self, images: Tensor, candidates: ClassTexts) -> Tensor:
        """Log-probabilities: the ridge head's among learned candidates, CLIP's for the others."""
        features = self.model.encode_image(images)
        zero_shot = self.model.similarities(features, self.model.class_features(candidates))
        scores = zero_shot.log_softmax(dim=1)
        column, row = torch.nonzero(
            torch.tensor(candidates.ids, device=self.ids.device)[:, None] == self.ids, as_tuple=True
        )
        if len(column):
            regularised = self.gram + self.ridge * torch.eye(len(self.gram)).to(self.gram)
            head = torch.linalg.solve(regularised, self.sums[row].T)
            among = (features.double() @ head / self.temperature).log_softmax(dim=1)
            share = scores[:, column].logsumexp(dim=1, keepdim=True)
            scores[:, column] = share + among.to(scores.dtype)
        return scores
