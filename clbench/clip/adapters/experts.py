"""Mixtures of bottleneck adapters, of which a router chooses a few for every input."""

from __future__ import annotations

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.adapters.bottleneck import Bottleneck
from clbench.clip.growing import GrowingList
from clbench.clip.layers.together import declare

NOISE: Final = 0.01
"""Smallest standard deviation of the noise of a router."""


@declare(pure=True)
class Router(nn.Module):
    """What scores the experts for an input r, in training with noise of a size that it learns.

    Attributes:
        gate: W_g, ``(width, experts)``.
        noise: W_n, likewise.
    """

    def __init__(self, width: int, experts: int, device: torch.device) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(width, experts, device=device))
        self.noise = nn.Parameter(torch.zeros(width, experts, device=device))

    def forward(self, r: Tensor, *, noisy: bool) -> Tensor:
        """Scores ``(N, experts)`` of inputs ``(N, width)``.

        ``r W_g``, or noisy ``r W_g + n (softplus(r W_n) + 0.01)`` with n standard normal.
        """
        with torch.autocast(r.device.type, enabled=False):  # rounding must choose no experts
            r = r.float()
            scores = r @ self.gate
            if noisy:
                scores = scores + self._draw(scores) * (F.softplus(r @ self.noise) + NOISE)
            return scores

    def _draw(self, like: Tensor) -> Tensor:
        return torch.randn_like(like)


class TextEnds:
    """Where the texts that are being encoded end, ``(N,)``; a plain object that layers share."""

    positions: Tensor


@declare(pure=True, ignored=("ends",))
class EndMarking(nn.Module):
    """A token embedding that notes where the texts end: end-of-text is the largest id."""

    def __init__(self, embedding: nn.Module, ends: TextEnds) -> None:
        super().__init__()
        self.embedding, self.ends = embedding, ends

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed ``(N, L)`` tokens."""
        self.ends.positions = tokens.argmax(dim=-1)
        embedded: Tensor = self.embedding(tokens)
        return embedded


# What the noted ends are follows from the tokens that are being encoded.
@declare(pure=lambda experts: not experts.training, ignored=("ends",))
class Experts(nn.Module):
    """Bottleneck adapters, and a router per task that chooses the best `top` for every input.

    With the scores h of a router, ``y = sum_{e in top} g_e E_e(x)`` over all tokens x of an input,
    g being the softmax of h over the chosen experts. The router reads one token of the residual
    stream: the first, or where texts end. An expert that no input has chosen takes no part in the
    graph, so that it gets no gradient rather than one of zero.

    Attributes:
        experts: the E adapters.
        routers: one per task.
        route: number of the router that chooses; None adds nothing.
    """

    counts: Tensor
    """How often each expert was chosen in training since `freeze`, ``(E,)`` int64."""
    frozen: Tensor
    """Which experts train no more, ``(E,)`` bool."""

    def __init__(
        self,
        width: int,
        bottleneck: int,
        count: int,
        top: int,
        scale: float,
        dropout: float,
        ends: TextEnds | None = None,
    ) -> None:
        """Experts without a router.

        Args:
            width: size of a token.
            bottleneck: see `Bottleneck`.
            count: number of experts.
            top: how many are chosen.
            scale: see `Bottleneck`.
            dropout: see `Bottleneck`.
            ends: where texts end, if routers read there; None for the first token.
        """
        super().__init__()
        self.top = top
        self.ends = ends
        self.route: int | None = None
        self.experts = nn.ModuleList(
            Bottleneck(width, bottleneck, scale, dropout) for _ in range(count)
        )
        self.register_buffer("counts", torch.zeros(count, dtype=torch.int64))
        self.register_buffer("frozen", torch.zeros(count, dtype=torch.bool))
        self.routers = GrowingList(lambda: Router(width, count, self.counts.device))

    def forward(self, x: Tensor) -> Tensor | None:
        """What the chosen experts add to ``(N, L, width)``; None without a route."""
        if self.route is None:
            return None
        rows = torch.arange(len(x), device=x.device)
        read = x[:, 0] if self.ends is None else x[rows, self.ends.positions]
        gates, chosen = self.choose(read)
        sizes = chosen.flatten().bincount(minlength=len(self.counts))
        if self.training:
            self.counts += sizes
        order = chosen.flatten().argsort(stable=True)
        shares = sizes.tolist()
        inputs = (order // self.top).split(shares)
        weights = gates.flatten()[order].split(shares)
        total = torch.zeros_like(x)
        for expert, mine, gate in zip(self.experts, inputs, weights, strict=True):
            if len(mine):
                total.index_add_(0, mine, expert(x[mine], gate).to(total.dtype))
        return total

    def choose(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """Gates ``(N, top)`` and numbers ``(N, top)`` of the experts for inputs ``(N, width)``."""
        scores: Tensor = self.routers[cast("int", self.route)](read, noisy=self.training)
        best, chosen = scores.topk(self.top, dim=1)
        return best.softmax(dim=1), chosen

    def train_with(self, route: int) -> None:
        """Let a router, and the experts that are not frozen, require grad, and nothing else."""
        self.requires_grad_(False)
        self.routers[route].requires_grad_(True)
        for expert, frozen in zip(self.experts, self.frozen.tolist(), strict=True):
            expert.requires_grad_(not frozen)

    def freeze(self, number: int) -> None:
        """Train the experts that were chosen most often no more, and count anew."""
        self.frozen[self.counts.argsort(descending=True, stable=True)[:number]] = True
        self.counts.zero_()
