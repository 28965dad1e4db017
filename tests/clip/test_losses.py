"""Loss terms: released values, and what they must not depend on."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.losses import alignment, classification, distillation, soft_cross_entropy
from clbench.testing.driving import first_batch
from tests.golden.golden import read


def test_distillation_and_alignment_are_the_released_ones():
    golden = read("gnsp")
    terms, hp = golden.below("loss."), golden.metadata
    teacher, student = terms["logits_ref"], terms["logits_current"]
    distilled = distillation(teacher, student, hp["distill_temperature"])
    torch.testing.assert_close(distilled[None], terms["distill"], rtol=1e-4, atol=0)
    aligned = alignment(student, terms["ref_labels"], hp["label_smoothing"])
    torch.testing.assert_close(aligned[None], terms["map"], rtol=1e-4, atol=0)


def test_distillation_is_least_at_the_teacher():
    teacher = torch.randn(5, 4)
    student = teacher.clone().requires_grad_()
    distillation(teacher, student, 2.0).backward()
    torch.testing.assert_close(student.grad, torch.zeros(5, 4), atol=1e-6, rtol=0)
    worse = distillation(teacher, teacher + torch.randn(5, 4), 2.0)
    assert worse > distillation(teacher, teacher, 2.0)


def test_gradient_is_the_distance_to_the_teacher_at_high_temperature():
    teacher, student = torch.randn(1, 4), torch.randn(1, 4, requires_grad=True)
    soft_cross_entropy(teacher, student, 1000.0).backward()
    gap = (student - teacher).detach()
    torch.testing.assert_close(student.grad, (gap - gap.mean()) / 4, atol=1e-3, rtol=0)


def test_alignment_of_distinct_captions_is_the_contrastive_loss():
    z, order = torch.randn(6, 6), torch.arange(6)
    expected = F.cross_entropy(z, order) + F.cross_entropy(z.T, order)
    torch.testing.assert_close(alignment(z, torch.tensor([5, 3, 9, 0, 1, 7])), expected)


def test_alignment_shares_the_target_among_equal_captions():
    z = torch.tensor([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
    shared = alignment(z * 20, torch.tensor([0, 0, 1]))
    assert shared.item() == pytest.approx(2 * (2 / 3) * torch.tensor(2.0).log().item(), abs=1e-4)


def test_classification_reaches_both_encoders(tiny_clip, tiny_task_data):
    tiny_clip.requires_grad_(True)
    classification(tiny_clip, first_batch(tiny_task_data(0)[1])).backward()
    assert tiny_clip.network.visual.proj.grad.abs().sum() > 0
    assert tiny_clip.network.text_projection.grad.abs().sum() > 0
