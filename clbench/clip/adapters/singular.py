"""Linear layers of which the smaller singular components are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.growing import let_grow
from clbench.clip.layers.together import declare


@declare(pure=True)
class SingularLinear(nn.Module):
    """A linear layer in two parts: ``y = (U_h S_h V_h + U diag(s) V) x + b``; U, s and V train.

    Between tasks there is the base layer only. The number of trained components may differ from
    task to task; state dicts are loaded in the sizes that they have.

    Attributes:
        base: the wrapped layer, frozen; its weight is ``U_h S_h V_h`` while there are two parts,
            else the whole.
        up: U, ``(out, r)``.
        values: s, ``(r,)``.
        down: V, ``(r, in)``.
    """

    kept_up: Tensor
    """U_h, ``(out, k)`` orthonormal columns; none between tasks."""
    kept_down: Tensor
    """V_h, ``(k, in)`` orthonormal rows; none between tasks."""

    def __init__(self, base: nn.Linear) -> None:
        """Wrap a layer, which is frozen."""
        super().__init__()
        self.base = base.requires_grad_(False)
        new = base.weight.new_zeros
        self.up = nn.Parameter(new(base.out_features, 0))
        self.values = nn.Parameter(new(0))
        self.down = nn.Parameter(new(0, base.in_features))
        self.register_buffer("kept_up", new(base.out_features, 0))
        self.register_buffer("kept_down", new(0, base.in_features))
        let_grow(self, "up", "values", "down", "kept_up", "kept_down")

    @property
    def active(self) -> bool:
        """Whether there are components that train."""
        return len(self.values) > 0

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``(..., in)``."""
        if not self.active:
            y: Tensor = self.base(x)
            return y
        # Tokens outnumber components, so one weight is cheaper than two factors.
        with torch.autocast(x.device.type, enabled=False):
            weight = torch.addmm(self.base.weight, self.up * self.values, self.down)
        return F.linear(x, weight, self.base.bias)

    @torch.no_grad()
    def split(self, u: Tensor, s: Tensor, vh: Tensor, kept: int) -> None:
        """Let all but the leading components of the weight's decomposition train.

        Args:
            u: ``(out, d)``.
            s: ``(d,)`` in descending order.
            vh: ``(d, in)``.
            kept: number k of leading components that stay.
        """
        self._set(u[:, kept:], s[kept:], vh[kept:], u[:, :kept], vh[:kept])
        self.base.weight.copy_(self.base.weight.double() - self.delta())

    @torch.no_grad()
    def delta(self) -> Tensor:
        """What trains, ``U diag(s) V``, ``(out, in)`` in float64."""
        product: Tensor = (self.up.double() * self.values.double()) @ self.down.double()
        return product

    @torch.no_grad()
    def merge(self) -> None:
        """Put both parts together; outputs stay as they are."""
        self.base.weight.copy_(self.base.weight.double() + self.delta())
        none = slice(0, 0)
        self._set(
            self.up[:, none],
            self.values[none],
            self.down[none],
            self.kept_up[:, none],
            self.kept_down[none],
        )

    @torch.no_grad()
    def confine(self, up: Tensor, down: Tensor) -> None:
        """Take out of U and V, or what stands beside them, what lies along U_h and V_h.

        ``U <- U - U_h U_h^T U`` and ``V <- V - V V_h^T V_h``, in place.

        Args:
            up: ``(out, r)``.
            down: ``(r, in)``.
        """
        up.sub_(self.kept_up @ (self.kept_up.T @ up))
        down.sub_((down @ self.kept_down.T) @ self.kept_down)

    def _set(
        self, up: Tensor, values: Tensor, down: Tensor, kept_up: Tensor, kept_down: Tensor
    ) -> None:
        # Contiguous, as they are when loaded: products of other layouts round in another way.
        parts = [
            part.to(self.base.weight).clone(memory_format=torch.contiguous_format)
            for part in (up, values, down, kept_up, kept_down)
        ]
        self.up, self.values, self.down = map(nn.Parameter, parts[:3])
        self.kept_up, self.kept_down = parts[3:]

    def extra_repr(self) -> str:
        """Number of components that train, for the printed module."""
        return f"trained={len(self.values)}"
