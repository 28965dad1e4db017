"""Linear layers with a low-rank update beside a frozen weight."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clbench.clip.lowrank_product import Factors, lowrank_product

if TYPE_CHECKING:
    from clbench.clip.model import CLIP


class Dropout(nn.Module):
    """`torch.nn.Dropout` with a mask that costs a tenth on the CPU.

    PyTorch draws one random double per element there, a quarter of a training step of a small
    model. Here one draw of 64 bits serves four elements, so p is rounded to a multiple of 2^-16.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share p of the elements and scale up the others, in training only."""
        kept = self.draw(x)
        return x if kept is None else x * kept / (1 - self.p)

    def draw(self, x: Tensor) -> Tensor | None:
        """Which elements of a tensor to keep, bool; None if all are kept."""
        if not self.training or self.p == 0:
            return None
        if x.device.type != "cpu":
            return torch.rand(x.shape, device=x.device) >= self.p
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        draws = words.view(torch.int16)[: x.numel()].view(x.shape)  # uniform in [-2^15, 2^15)
        # NumPy compares six times faster than PyTorch does on the CPU.
        return torch.from_numpy(draws.numpy() >= round(self.p * 2**16) - 2**15)


class LowRankLinear(nn.Module):
    """A frozen linear layer plus a low-rank update: ``y = W x + b + c B M A dropout(x)``.

    The update is applied factor by factor and never built as an ``out x in`` matrix, and neither
    is its gradient (see `lowrank_product`). Without a core, ``M`` is left out and the layer is
    LoRA's. The factors keep their shapes from task to task, so the state dict of any moment fits
    any other.

    Attributes:
        base: the wrapped layer, frozen; its weight changes only by `merge` and `subtract`.
        down: A, ``(rank, in)``.
        core: M, ``(rank, rank)``, or None.
        up: B, ``(out, rank)``.
        scale: c.
        active: False while the update is known to be zero, which lets the forward pass skip it.
    """

    def __init__(
        self,
        base: nn.Linear,
        rank: int,
        scale: float,
        *,
        dropout: float = 0.0,
        core: bool = False,
        trained: Collection[str] = ("down", "up"),
    ) -> None:
        """Wrap a layer with an update that is zero.

        Args:
            base: the layer to wrap; it is frozen.
            rank: columns of B and rows of A.
            scale: the factor c.
            dropout: applied to the input of the update, not to that of the base layer.
            core: whether there is an M between A and B.
            trained: which of ``down``, ``core`` and ``up`` require grad.
        """
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = scale
        self.dropout = Dropout(dropout)
        weight = base.weight
        self.down = nn.Parameter(weight.new_zeros(rank, base.in_features), "down" in trained)
        self.up = nn.Parameter(weight.new_zeros(base.out_features, rank), "up" in trained)
        self.core: nn.Parameter | None = (
            nn.Parameter(weight.new_zeros(rank, rank), "core" in trained) if core else None
        )
        self.active = False
        self.register_load_state_dict_post_hook(_activate)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``(..., in)``."""
        if not self.active:
            y: Tensor = self.base(x)
            return y
        kept = self.dropout.draw(x)
        scale = self.scale if kept is None else self.scale / (1 - self.dropout.p)
        factors = Factors(self.base.weight, self.base.bias, self.down, self.core, self.up)
        kind = x.device.type
        if not torch.is_autocast_enabled(kind):
            return lowrank_product(x, factors, scale, kept)
        dtype = torch.get_autocast_dtype(kind)
        x, factors = x.to(dtype), factors.to(dtype)
        with torch.autocast(kind, enabled=False):
            return lowrank_product(x, factors, scale, kept)

    @torch.no_grad()
    def set_factors(self, *, down: Tensor, up: Tensor, core: Tensor | None = None) -> None:
        """Start a task with the given A and B; M starts at `core`, or at zero."""
        self.down.copy_(down)
        self.up.copy_(up)
        if self.core is not None:
            self.core.zero_() if core is None else self.core.copy_(core)
        self.active = True

    @torch.no_grad()
    def delta(self) -> Tensor:
        """The update ``c B M A``, ``(out, in)`` in float64."""
        down = self.down.double()
        if self.core is not None:
            down = self.core.double() @ down
        return self.scale * (self.up.double() @ down)

    @torch.no_grad()
    def subtract(self) -> None:
        """Take the update out of the base weight, so that the sum of both is what it was."""
        self.base.weight.copy_(self.base.weight.double() - self.delta())

    @torch.no_grad()
    def merge(self) -> None:
        """Move the update into the base weight; outputs stay as they are."""
        self.base.weight.copy_(self.base.weight.double() + self.delta())
        (self.up if self.core is None else self.core).zero_()
        self.active = False

    def extra_repr(self) -> str:
        """Rank and scale, for the printed module."""
        return f"rank={len(self.down)}, scale={self.scale:.4g}"


def low_rank_scale(alpha: float, rank: int) -> float:
    """Scale of a low-rank update, ``alpha / sqrt(rank)``, with the configured rank.

    >>> round(low_rank_scale(2, 128), 4)
    0.1768
    """
    return alpha / math.sqrt(rank)


def attach(
    model: CLIP, layers: Iterable[tuple[str, nn.Linear]], rank: int, scale: float, **options: Any
) -> dict[str, LowRankLinear]:
    """Wrap layers of a model, named as `CLIP.attention_linears` names them.

    Args:
        model: the model that holds the layers.
        layers: dotted names and layers.
        rank: see `LowRankLinear`.
        scale: see `LowRankLinear`.
        **options: keyword arguments of `LowRankLinear`.

    Returns:
        The wrapped layers by name, in the order given.
    """
    adapters = {}
    for name, layer in layers:
        adapters[name] = LowRankLinear(layer, rank, scale, **options)
        model.replace(name, adapters[name])
    return adapters


def detach(model: nn.Module) -> None:
    """Merge every low-rank update of a model and put the plain layers back."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LowRankLinear):
                child.merge()
                setattr(parent, name, child.base)


def _activate(module: nn.Module, _: object) -> None:
    """After loading, the update may be anything."""
    if isinstance(module, LowRankLinear):
        module.active = True
