"""The singular values of the weights: how many directions they use, and which a task changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from torch import Tensor, nn

from clbench.clip.model import CLIP
from clbench.clip.subspaces.directions import principal_rank, thin_svds
from clbench.clip.subspaces.effective_rank import ENERGY, weight_of
from clbench.core.probe import Look, Probe

SHARES: Final = ("inside_left", "inside_right", "inside_both")


@dataclass(frozen=True, eq=False)
class Decomposed:
    """A weight with its principal directions.

    Attributes:
        weight: W, ``(out, in)``.
        u: ``(out, d)`` left singular vectors, all of them.
        s: ``(d,)`` singular values.
        vh: ``(d, in)`` right singular vectors.
        rank: how many directions hold the principal share of the energy.
    """

    weight: Tensor
    u: Tensor
    s: Tensor
    vh: Tensor
    rank: int


@final
class Spectrum(Probe):
    """Ranks of the weights, and how the update of a task lies to what was principal before it.

    For every linear layer of the blocks of both encoders, updates not yet merged included. With
    ``W = U diag(s) V^T`` at the start of the task, ``k = min{k : sum_{i<=k} s_i^2 / sum s_i^2 >=
    0.95}``, and the update D of the task: the share of ``||D||^2`` that lies in the principal
    directions of the output (left, ``||U_k^T D||^2``), of the input (right, ``||D V_k||^2``) or of
    both (``||U_k^T D V_k||^2``). NuSA-CL and MiLoRA keep D out of both; what a method leaves alone
    has no share.

    Sources: NuSA-CL (principal rank, subspaces frozen at the start of a task); Roy & Vetterli 2007
    (effective rank, the exponential of the entropy of the singular values).
    """

    name: ClassVar[str] = "spectrum"

    def __init__(self) -> None:
        self._names: list[str] = []
        self._start: dict[str, Tensor] = {}
        self._before: dict[str, Decomposed] = {}
        self._learned = -1

    def start(self, look: Look) -> None:
        """Keep the weights."""
        self._names = [name for name, _ in look.model.block_linears()]
        self._start = weights_of(look.model, self._names)

    def before_task(self, look: Look) -> None:
        """Keep the weights and their directions, unless they are known from the row before."""
        if self._learned != look.learned:
            self._before, self._learned = self._decomposed(look.model), look.learned

    def measure(self, look: Look) -> Mapping[str, float | None]:
        """Ranks, shares and angles, as means over all weights, per encoder and per weight."""
        found: dict[str, dict[str, float]] = {}
        now = self._decomposed(look.model)
        for name, today in now.items():
            values = found[name] = ranks(today)
            updated = look.learned and name in self._start
            rank = relative_rank(today.weight - self._start[name]) if updated else None
            if rank is not None:
                values["update_rank"] = rank
            if name in self._before and self._learned == look.learned - 1:
                before = self._before[name]
                values |= shares(today.weight - before.weight, before)
                values["angle"] = mean_angle(before, today)
        self._before, self._learned = now, look.learned
        return collected(found)

    def _decomposed(self, model: CLIP) -> dict[str, Decomposed]:
        names = self._names or [name for name, _ in model.block_linears()]
        weights = weights_of(model, names)
        svds = thin_svds(list(weights.values()))
        return {
            name: Decomposed(weight, *svd, principal_rank(svd.s, ENERGY))
            for (name, weight), svd in zip(weights.items(), svds, strict=True)
        }


def weights_of(model: CLIP, names: Sequence[str]) -> dict[str, Tensor]:
    """Copies of the weights that layers apply, without those whose weight is not known."""
    found = {name: weight_of(model.get_submodule(name)) for name in names}
    return {
        name: weight.detach().float().clone()
        for name, weight in found.items()
        if weight is not None
    }


def layers_at(model: CLIP, names: Sequence[str]) -> dict[str, nn.Module]:
    """What stands at the places of layers now; those in a part that a method replaced are gone."""
    places = dict(model.named_modules())
    return {name: places[name] for name in names if name in places}


def ranks(weight: Decomposed) -> dict[str, float]:
    """Principal and effective rank as shares of the full rank."""
    p = weight.s.double() / weight.s.double().sum()
    entropy = -(p * p.clamp_min(1e-300).log()).sum()
    full = len(weight.s)
    return {
        "principal_rank": weight.rank / full,
        "effective_rank": float(entropy.exp()) / full,
    }


def relative_rank(update: Tensor) -> float | None:
    """Directions that hold the principal share of an update's energy, over the full rank."""
    if not update.any():
        return None
    s = torch.linalg.svdvals(update.double())
    return principal_rank(s, ENERGY) / len(s)


def shares(update: Tensor, before: Decomposed) -> dict[str, float]:
    """Shares of an update's energy inside the principal directions; none if there is no update."""
    total = update.double().square().sum()
    if total == 0:
        return {}
    d, k = update.double(), before.rank
    u, v = before.u[:, :k].double(), before.vh[:k].double().T
    parts = (u.T @ d, d @ v, u.T @ d @ v)
    return {
        name: float(part.square().sum() / total) for name, part in zip(SHARES, parts, strict=True)
    }


def mean_angle(before: Decomposed, today: Decomposed) -> float:
    """Mean principal angle between as many leading directions, of output and input, in degrees."""
    k = before.rank
    pairs = ((before.u[:, :k], today.u[:, :k]), (before.vh[:k].T, today.vh[:k].T))
    return sum(float(principal_angles(a, b).mean()) for a, b in pairs) / 2


def principal_angles(a: Tensor, b: Tensor) -> Tensor:
    """Angles between two subspaces, ``(k,)`` degrees.

    Small ones are taken from their sine, which float32 knows better than a cosine near 1.

    Args:
        a: ``(d, k)`` orthonormal columns.
        b: likewise.
    """
    a, b = a.double(), b.double()
    cosines = torch.linalg.svdvals(a.T @ b).clamp(0, 1)
    sines = torch.linalg.svdvals(b - a @ (a.T @ b)).flip(0).clamp(0, 1)
    return torch.where(cosines > 0.7, sines.asin(), cosines.acos()).rad2deg()


def collected(found: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Means over all layers, per encoder (``angle/vision``) and per layer.

    Args:
        found: name of a layer, as in the model, to measure to number.
    """
    groups: dict[str, list[float]] = {}
    details: dict[str, float] = {}
    for layer, values in found.items():
        encoder = "vision" if ".visual." in layer else "text"
        place = f"{encoder}.{layer.partition('.resblocks.')[2]}"
        for measure, value in values.items():
            for key in (measure, f"{measure}/{encoder}"):
                groups.setdefault(key, []).append(value)
            details[f"{measure}/{place}"] = value
    means = {key: sum(numbers) / len(numbers) for key, numbers in groups.items()}
    return {**means, **details}
