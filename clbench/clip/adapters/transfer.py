"""Maps of single tasks within directions that weights must otherwise leave alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.growing import let_grow
from clbench.clip.layers.together import declare


@declare(pure=True)
class Transfer(nn.Module):
    """A square map S within a basis U, for each task that has one.

    Attributes:
        trained: S of the present task, ``(k, k)``; ``(0, 0)`` if it has none.
        chosen: which map is in force: None for the present task's, else an index into `tasks`, -1
            for none.
    """

    basis: Tensor
    """U of the present task, ``(d, k)``; ``(d, 0)`` if it has none."""
    bases: Tensor
    """Those of earlier tasks, ``(n, d, k)``."""
    maps: Tensor
    """Their maps, ``(n, k, k)``."""
    tasks: Tensor
    """Which tasks have a map, the present one last, ``(n,)`` or ``(n + 1,)`` int64."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.zeros(0, 0))
        self.chosen: int | None = None
        self.register_buffer("basis", torch.zeros(dim, 0))
        self.register_buffer("bases", torch.zeros(0, dim, 0))
        self.register_buffer("maps", torch.zeros(0, 0, 0))
        self.register_buffer("tasks", torch.zeros(0, dtype=torch.int64))
        let_grow(self, "trained", "basis", "bases", "maps", "tasks")

    @torch.no_grad()
    def start(self, task: int, basis: Tensor, start: Tensor) -> None:
        """Give a task a map.

        Args:
            task: its index.
            basis: U, ``(d, k)``, of as many columns for every task.
            start: what S starts from, ``(k, k)``.
        """
        self.basis = basis.to(self.basis).contiguous()
        self.trained = nn.Parameter(start.to(self.basis))
        self.tasks = torch.cat([self.tasks, self.tasks.new_tensor([task])])

    @torch.no_grad()
    def keep(self) -> None:
        """End the task: its map, if it has one, stays as it is."""
        if not len(self.trained):
            return
        basis, trained = self.basis[None], self.trained.detach()[None]
        first = not len(self.bases)
        self.bases = basis.clone() if first else torch.cat([self.bases, basis])
        self.maps = trained.clone() if first else torch.cat([self.maps, trained])
        self.basis = self.basis[:, :0].clone()
        self.trained = nn.Parameter(self.trained[:0, :0].clone())

    def choose(self, task: int | None) -> None:
        """Put the map of a task in force, if it has one; None is the present task."""
        tasks = self.tasks.tolist()
        self.chosen = None if task is None else tasks.index(task) if task in tasks else -1

    def pair(self) -> tuple[Tensor, Tensor] | None:
        """U and S in force."""
        chosen = len(self.bases) if self.chosen is None else self.chosen
        if 0 <= chosen < len(self.bases):
            return self.bases[chosen], self.maps[chosen]
        return (self.basis, self.trained) if chosen >= 0 and len(self.trained) else None


@declare(pure=True)
class TransferLinear(nn.Module):
    """A linear layer whose input passes a map first: ``y = (W + W U S U^T - W U U^T) x + b``.

    The gradient of W is taken as if the last W were a constant.

    Args:
        base: the layer with W and b.
        transfer: holds U and S; layers with the same input may share it.
    """

    def __init__(self, base: nn.Linear, transfer: Transfer) -> None:
        super().__init__()
        self.base = base
        self.transfer = transfer

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to ``(..., in)``."""
        pair = self.transfer.pair()
        if pair is None:
            y: Tensor = self.base(x)
            return y
        basis, trained = pair
        weight = self.base.weight
        with torch.autocast(x.device.type, enabled=False):
            mapped = weight @ basis @ trained - weight.detach() @ basis
            weight = torch.addmm(weight, mapped, basis.T)
        return F.linear(x, weight, self.base.bias)
