"""Loss terms on similarity logits: classification, distillation, modality alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

if TYPE_CHECKING:
    from clbench.clip.model import CLIP
    from clbench.core.data import Batch


def classification(model: CLIP, batch: Batch, label_smoothing: float = 0.2) -> Tensor:
    """Cross-entropy of a batch among all classes of its task.

    ``logits = s f(x) g(prompt_c)^T`` over the C classes, with both encoders in the graph: the
    prompts are encoded anew in every step in which the text encoder trains.
    """
    logits = model.logits(batch.images, model.text_features(batch.prompts))
    return F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)


def soft_cross_entropy(teacher_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Cross-entropy to the teacher's softened rows, averaged over the rows.

    ``D(t, s) = -mean_i sum_j softmax(t / T)_ij log softmax(s / T)_ij T^2``. The factor ``T^2``
    keeps the size of the gradient independent of the temperature T.

    >>> import torch
    >>> round(soft_cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2), 1.0).item(), 4)
    0.6931
    """
    targets = (teacher_logits / temperature).softmax(dim=-1)
    log_probabilities = (logits / temperature).log_softmax(dim=-1)
    return -(targets * log_probabilities).sum(dim=-1).mean() * temperature**2


def distillation(teacher_logits: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Distillation of image-text similarities in both directions.

    ``D(t, s) + D(t^T, s^T)``: each image's distribution over the texts and each text's over the
    images follow the teacher's.

    Args:
        teacher_logits: ``(N, K)`` similarities under the teacher.
        logits: ``(N, K)`` similarities under the trained model.
        temperature: softens both distributions.
    """
    by_image = soft_cross_entropy(teacher_logits, logits, temperature)
    by_text = soft_cross_entropy(teacher_logits.T, logits.T, temperature)
    return by_image + by_text


def alignment(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Contrastive loss of image-caption pairs in which equal captions are all positives.

    ``CE(Z, Y) + CE(Z^T, Y)`` with ``Y_ij = [c_i = c_j]`` divided by its row sums; pairs with the
    same caption share the target instead of being pushed apart.

    Args:
        logits: ``(N, N)`` similarities Z of N images with their N captions.
        labels: ``(N,)`` caption index c of each pair.
        label_smoothing: share of the target spread evenly over all N.

    >>> import torch
    >>> round(alignment(torch.zeros(2, 2), torch.tensor([3, 3])).item(), 4)  # 2 log 2
    1.3863
    """
    same = (labels[:, None] == labels[None, :]).to(logits.dtype)
    targets = same / same.sum(dim=1, keepdim=True)
    by_image = F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    by_text = F.cross_entropy(logits.T, targets, label_smoothing=label_smoothing)
    return by_image + by_text
