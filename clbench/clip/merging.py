"""Several models made one: interpolation, MagMax, TIES, and unified deltas that come apart again.

The weights of a model, or their differences to those of another, are a row ``(d,)`` of numbers;
T models are ``(T, d)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def flatten(weights: Iterable[Tensor]) -> Tensor:
    """A copy of all entries in one row ``(d,)``."""
    return torch.cat([weight.detach().reshape(-1) for weight in weights])


def unflatten(row: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of a row ``(d,)`` in the shapes of the given tensors.

    >>> a, b = unflatten(torch.arange(6.0), [torch.zeros(2, 2), torch.zeros(2)])
    >>> a.tolist(), b.tolist()
    ([[0.0, 1.0], [2.0, 3.0]], [4.0, 5.0])
    """
    parts = row.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


@torch.no_grad()
def assign(weights: Sequence[Tensor], row: Tensor) -> None:
    """Write a row ``(d,)`` into weights, also where autocast has cast them before."""
    for weight, value in zip(weights, unflatten(row, weights), strict=True):
        weight.copy_(value)
    torch.clear_autocast_cache()


def interpolated(
    before: Tensor,
    after: Tensor,
    alpha: float,
    importance: tuple[Tensor, Tensor] | None = None,
    floor: float = 1e-8,
) -> Tensor:
    """``(1 - alpha) before + alpha after``, entry by entry as WiSE-FT does it.

    Args:
        before: ``(d,)`` or any shape.
        after: of the same shape.
        alpha: share of `after`.
        importance: diagonal Fisher information of both. Shares are then ``(1 - alpha) F_before``
            and ``alpha F_after``, divided by their sum.
        floor: least importance of an entry.

    >>> interpolated(torch.tensor([0.0]), torch.tensor([4.0]), 0.25).item()
    1.0
    """
    if importance is None:
        return (1 - alpha) * before + alpha * after
    old = (1 - alpha) * importance[0].clamp(min=floor)
    new = alpha * importance[1].clamp(min=floor)
    return (old * before + new * after) / (old + new)


def larger_magnitude(deltas: Tensor, delta: Tensor) -> Tensor:
    """Per entry the number of larger absolute value; of equal ones the second.

    Applied to one delta after the other it gives what is largest among all (MagMax).

    >>> larger_magnitude(torch.tensor([3.0, -2.0, 1.0]), torch.tensor([-1.0, 2.0, 4.0])).tolist()
    [3.0, 2.0, 4.0]
    """
    return torch.where(delta.abs() >= deltas.abs(), delta, deltas)


def trimmed(deltas: Tensor, share: float) -> Tensor:
    """Each row with all but its largest entries set to zero.

    Kept is what is not smaller in size than the entry of rank ``floor(share d) + 1``, so one entry
    more than the share says, and all that tie with the last.

    Args:
        deltas: ``(T, d)``.
        share: of the entries, from 0 to 1.

    >>> trimmed(torch.tensor([[1.0, -5.0, 3.0, 2.0]]), 0.5).tolist()
    [[0.0, -5.0, 3.0, 2.0]]
    """
    size = deltas.shape[1]
    count = min(int(share * size) + 1, size)
    least = deltas.abs().topk(count, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    return torch.where(deltas.abs() >= least, deltas, torch.zeros_like(deltas))


def ties(deltas: Tensor, share: float) -> Tensor:
    """Trim, elect a sign, and average what has that sign (TIES).

    An entry's sign is that of the sum of the trimmed deltas; where the sum is zero, that of the sum
    of all elected signs. The mean is over the trimmed deltas of that sign, however many.

    Args:
        deltas: ``(T, d)``.
        share: of the entries that are kept in every row.

    Returns:
        The merged delta ``(d,)``.
    """
    kept = trimmed(deltas, share)
    signs = kept.sum(dim=0).sign()
    signs = torch.where(signs == 0, signs.sum().sign(), signs)
    agreeing = torch.where(kept.sign() == signs, kept, torch.zeros_like(kept))
    return agreeing.sum(dim=0) / agreeing.count_nonzero(dim=0).clamp(min=1)


def unified(deltas: Tensor) -> tuple[Tensor, Tensor]:
    """One delta for T, and the entries that each of them shares with it (ConDU).

    The sign of an entry is that of the mean over the deltas, where zero counts as negative; its
    size is the largest among the deltas of that sign.

    Args:
        deltas: ``(T, d)``.

    Returns:
        The unified delta ``(d,)`` and masks ``(T, d)`` bool.
    """
    signs = torch.where(deltas.mean(dim=0) > 0, 1.0, -1.0).to(deltas.dtype)
    masks = deltas * signs > 0
    sizes = torch.where(masks, deltas.abs(), torch.zeros_like(deltas))
    return signs * sizes.amax(dim=0), masks


def unified_with(
    unified_delta: Tensor,
    masks: Tensor,
    factors: Tensor,
    delta: Tensor,
    sizes: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Take a new delta into a unified one (a session of ConDU).

    The T earlier deltas come out of the unified one as ``factor_i mask_i * unified`` and are
    unified again, together with the new one. The new factors are, with means over the entries of
    each tensor, ``sum mean |delta_i| / sum mean |mask_i * unified|`` over all tensors.

    Args:
        unified_delta: ``(d,)``; its values do not matter if T is 0.
        masks: ``(T, d)`` bool.
        factors: ``(T,)``.
        delta: ``(d,)``, the new one.
        sizes: entries of each tensor that the row consists of.

    Returns:
        The unified delta ``(d,)``, masks ``(T + 1, d)`` and factors ``(T + 1,)``.
    """
    merged = torch.empty_like(delta)
    shared = torch.empty(len(masks) + 1, len(delta), dtype=torch.bool, device=delta.device)
    wanted = delta.new_zeros(len(shared))
    found = delta.new_zeros(len(shared))
    start = 0
    for size in sizes:  # tensor by tensor: T whole models need not fit into memory
        part = slice(start, start + size)
        earlier = factors[:, None] * masks[:, part] * unified_delta[part]
        deltas = torch.cat([earlier, delta[None, part]])
        merged[part], shared[:, part] = unified(deltas)
        wanted += deltas.abs().mean(dim=1)
        found += (merged[part] * shared[:, part]).abs().mean(dim=1)
        start += size
    return merged, shared, torch.where(found > 0, wanted / found, torch.ones_like(found))


def packed(masks: Tensor) -> Tensor:
    """Masks ``(T, d)`` bool in ``(T, d / 8)`` bytes, the last one filled up with zeros.

    >>> packed(torch.tensor([[True, False, True, False, False, False, False, False, True]]))
    tensor([[5, 1]], dtype=torch.uint8)
    """
    bits = torch.nn.functional.pad(masks, [0, -masks.shape[1] % 8]).view(len(masks), -1, 8)
    return (bits.to(torch.uint8) << _places(masks)).sum(dim=2, dtype=torch.uint8)


def unpacked(masks: Tensor, size: int) -> Tensor:
    """The first `size` bits of each row of bytes ``(T, n)``, as bool ``(T, size)``.

    >>> unpacked(torch.tensor([[5, 1]], dtype=torch.uint8), 9).int().tolist()
    [[1, 0, 1, 0, 0, 0, 0, 0, 1]]
    """
    bits = (masks[:, :, None] >> _places(masks)) & 1
    return bits.flatten(1)[:, :size].bool()


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
