"""Loss terms: classification, distillation, modality alignment, and the distance to old weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

if TYPE_CHECKING:
    from clbench.clip.model import CLIP
    from clbench.clip.teacher import Teacher
    from clbench.core.data import Batch


def classification(model: CLIP, batch: Batch, label_smoothing: float = 0.2) -> Tensor:
    """Cross-entropy of a batch among all classes of its task.

    ``logits = s f(x) g(prompt_c)^T`` over the C classes, with both encoders in the graph: the
    prompts are encoded anew in every step in which the text encoder trains.
    """
    logits = model.logits(batch.images, model.text_features(batch.prompts))
    return F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)


def cross_entropy_among(
    logits: Tensor, labels: Tensor, allowed: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy in which every image has candidates of its own.

    Args:
        logits: ``(B, C)``.
        labels: ``(B,)`` int64, columns of the logits that are allowed.
        allowed: ``(B, C)`` bool, the candidates of each image.
        label_smoothing: share of the target spread evenly over an image's candidates.

    >>> import torch
    >>> allowed = torch.tensor([[True, True, False]])
    >>> loss = cross_entropy_among(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([0]), allowed)
    >>> round(loss.item(), 4)
    0.6931
    """
    log_probabilities = logits.masked_fill(~allowed, -torch.inf).log_softmax(dim=1)
    own = log_probabilities.gather(1, labels[:, None])[:, 0]
    even = log_probabilities.masked_fill(~allowed, 0).sum(dim=1) / allowed.sum(dim=1)
    return -((1 - label_smoothing) * own + label_smoothing * even).mean()


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


def classification_and_distillation(
    model: CLIP,
    batch: Batch,
    images: Tensor,
    teacher: Teacher,
    *,
    label_smoothing: float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """`classification` of a batch, and `distillation` on images and the teacher's texts.

    ``z = s f(I) g_0(C)^T`` follows ``t = s f_0(I) g_0(C)^T``. The teacher's text features stand on
    both sides, so the distillation's gradient reaches the image encoder only. Both sets of images
    are encoded in one pass.

    Args:
        model: is trained.
        batch: of the current task.
        images: ``(N, 3, H, W)`` reference images I.
        teacher: holds f_0 and the texts C.
        label_smoothing: of the classification.
        temperature: of the distillation.
    """
    own, reference = model.encode_together(batch.images, images)
    scores = model.similarities(own, model.text_features(batch.prompts))
    z = model.similarities(reference, teacher.texts)
    classified = F.cross_entropy(scores, batch.labels, label_smoothing=label_smoothing)
    return classified, distillation(teacher.logits(images), z, temperature)


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


def squared_distance(
    weights: Sequence[Tensor],
    anchors: Sequence[Tensor],
    importance: Sequence[Tensor] | None = None,
) -> Tensor:
    """``sum_i F_i (theta_i - anchor_i)^2`` over all entries, not their mean, and without a half.

    Args:
        weights: theta, tensors that train.
        anchors: where they should stay near, of the same shapes.
        importance: F, of the same shapes; None counts every entry once.

    >>> theta, anchor = [torch.ones(2, 3)], [torch.zeros(2, 3)]
    >>> squared_distance(theta, anchor).item()
    6.0
    """
    squares = [(now - then).square() for now, then in zip(weights, anchors, strict=True)]
    if importance is not None:
        squares = [f * square for f, square in zip(importance, squares, strict=True)]
    return torch.stack([square.sum() for square in squares]).sum()
