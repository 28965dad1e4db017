"""Linear layers with a low-rank update beside a frozen weight."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clbench.clip.adapters.lowrank_product import Factors, lowrank_products
from clbench.clip.layers.dropout import Dropout, Kept
from clbench.clip.layers.together import declare
from clbench.core.errors import ClbenchError


def _together(layers: Sequence[LowRankLinear], x: Tensor) -> Sequence[Tensor] | None:
    """Outputs of several layers through one autograd node, which sums the gradients of x."""
    alike = layers[0].active and all(layers[0]._is_like(layer) for layer in layers)
    return _products(layers, x) if alike else None


@declare(pure=True, together=_together, idle=lambda layer: not layer.active)
class LowRankLinear(nn.Module):
    """A frozen linear layer plus a low-rank update: ``y = W x + b + c B M A dropout(x)``.

    The update is applied factor by factor and never built as an ``out x in`` matrix, and neither
    is its gradient (see `lowrank_product`). Without a core, ``M`` is left out and the layer is
    LoRA's; a diagonal core is a gate on each rank. The factors keep their shapes from task to
    task, so the state dict of any moment fits any other.

    Attributes:
        base: the wrapped layer, frozen; its weight changes only by `merge` and `subtract`.
        down: A, ``(rank, in)``.
        core: M, ``(rank, rank)``, or its diagonal ``(rank,)``, or None.
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
        core: bool | Literal["diagonal"] = False,
        trained: Collection[str] = ("down", "up"),
    ) -> None:
        """Wrap a layer with an update that is zero.

        Args:
            base: the layer to wrap; it is frozen.
            rank: columns of B and rows of A.
            scale: the factor c.
            dropout: applied to the input of the update, not to that of the base layer.
            core: whether there is an M between A and B, which may be diagonal.
            trained: which of ``down``, ``core`` and ``up`` require grad.
        """
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = scale
        self.dropout = Dropout(dropout)
        weight = base.weight
        self.down = nn.Parameter(weight.new_zeros(rank, base.in_features), "down" in trained)
        self.up = nn.Parameter(weight.new_zeros(base.out_features, rank), "up" in trained)
        shape = (rank,) if core == "diagonal" else (rank, rank)
        self.core: nn.Parameter | None = (
            nn.Parameter(weight.new_zeros(shape), "core" in trained) if core else None
        )
        self.active = False
        self.register_load_state_dict_pre_hook(_assume_active)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``(..., in)``."""
        if not self.active:
            y: Tensor = self.base(x)
            return y
        return _products((self,), x)[0]

    def factors(self) -> Factors:
        """What the layer multiplies with."""
        core: Tensor | None = self.core
        if core is not None and core.dim() == 1:
            core = torch.diag(core)
        return Factors(self.base.weight, self.base.bias, self.down, core, self.up)

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
        _, _, down, core, up = self.factors()
        down = down.double() if core is None else core.double() @ down.double()
        return self.scale * (up.double() @ down)

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

    def get_extra_state(self) -> dict[str, bool]:
        """Whether there is an update: its factors do not tell, because it starts at zero."""
        return {"active": self.active}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        """Take up where the state was saved."""
        self.active = state["active"]

    def _is_like(self, other: LowRankLinear) -> bool:
        """Whether one draw of the dropout and one scale serve both updates."""
        return (
            self.active
            and other.active
            and self.scale == other.scale
            and self.dropout.p == other.dropout.p
            and self.dropout.training == other.dropout.training
        )

    def extra_repr(self) -> str:
        """Rank and scale, for the printed module."""
        return f"rank={len(self.down)}, scale={self.scale:.4g}"


def _products(layers: Sequence[LowRankLinear], x: Tensor) -> Sequence[Tensor]:
    """Outputs of active layers with the same scale and dropout."""
    scale, dropout = layers[0].scale, layers[0].dropout
    kept = None
    for layer in layers:
        _require_frozen(layer.base)
    if dropout.dropping:
        scale /= 1 - dropout.p
        kept = Kept.drawn(torch.Size((len(layers), *x.shape)), x.device, dropout.p)
    factors = [layer.factors() for layer in layers]
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return lowrank_products(x, factors, scale, kept)
    dtype = torch.get_autocast_dtype(kind)
    x, factors = x.to(dtype), [f.to(dtype) for f in factors]
    with torch.autocast(kind, enabled=False):
        return lowrank_products(x, factors, scale, kept)


def _require_frozen(base: nn.Linear) -> None:
    """Refuse a base layer that wants gradients, which the product does not compute.

    Raises:
        ClbenchError: names the cure.
    """
    if torch.is_grad_enabled() and any(p.requires_grad for p in base.parameters()):
        raise ClbenchError(
            "the base layer of a LowRankLinear requires grad, but its update is trained beside a "
            "frozen weight: call base.requires_grad_(False), or merge the update and train the "
            "plain layer"
        )


def low_rank_scale(alpha: float, rank: int) -> float:
    """Scale of a low-rank update, ``alpha / sqrt(rank)``, with the configured rank.

    >>> round(low_rank_scale(2, 128), 4)
    0.1768
    """
    return alpha / math.sqrt(rank)


def _assume_active(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """States that do not say whether there is an update may hold one."""
    state.setdefault(f"{prefix}_extra_state", {"active": True})
