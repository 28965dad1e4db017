"""How long decomposing the attention weights of a CLIP takes, how exact it is, and a training step.

No weights of CLIP are needed: a decomposition takes as long for any weight of the same shape and
much the same spectrum. Random ones are made whose principal directions (95 % of the energy) are
55 % of all, about as many as the weights of CLIP have.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from open_clip import CLIPVisionCfg
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from clbench import registry
from clbench.clip.adapters.lowrank import LowRankLinear, low_rank_scale
from clbench.clip.architecture import architecture
from clbench.clip.layers.attention import PROJECTIONS, SplitAttention
from clbench.clip.subspaces.directions import complement, random_orthonormal, thin_svds
from clbench.clip.subspaces.parallel import decompose_each
from clbench.clip.weights.loading import load_clip
from clbench.core.settings import BackboneSettings
from clbench.launch.engines.machine import usable_cores
from clbench.probes.spectrum import principal_angles

RANK: Final = 128
"""Directions that the NuSA-CL release takes of each weight."""
ALPHA: Final = 2.0
DROPOUT: Final = 0.25
Tail = tuple[Tensor, Tensor]
"""The smallest singular directions of a weight, of output and of input: ``(d, r)`` each."""


@dataclass(frozen=True)
class Tower:
    """An encoder of a CLIP, as far as time depends on it.

    Attributes:
        width: d of its ``(d, d)`` attention weights.
        layers: number of blocks, of four such weights each.
        heads: of an attention.
        mlp_ratio: hidden width of a block over its width.
        tokens: of an image or a prompt.
        causal: whether tokens see earlier ones only.
    """

    width: int
    layers: int
    heads: int
    mlp_ratio: float
    tokens: int
    causal: bool


def towers(model: str) -> tuple[Tower, Tower]:
    """Image and text encoder of an open_clip architecture."""
    config = architecture(model)
    vision, text = CLIPVisionCfg(**config["vision_cfg"]), config["text_cfg"]
    assert isinstance(vision.layers, int)
    assert isinstance(vision.image_size, int)
    patches = (vision.image_size // vision.patch_size) ** 2
    heads = vision.width // vision.head_width
    return (
        Tower(vision.width, vision.layers, heads, vision.mlp_ratio, patches + 1, causal=False),
        Tower(text["width"], text["layers"], text["heads"], 4.0, text["context_length"], True),
    )


def widths(models: Sequence[str]) -> list[int]:
    """The different widths of attention weights, smallest first."""
    return sorted({tower.width for model in models for tower in towers(model)})


def by_svd(weight: Tensor, rank: int) -> Tail:
    """All singular directions by LAPACK's gesdd, in the precision of the weight."""
    u, _, vh = thin_svds([weight], weight.dtype)[0]
    return u[:, -rank:], vh[-rank:].T


def by_gram(weight: Tensor, rank: int) -> Tail:
    """Smallest eigenvectors of ``W W^T`` and ``W^T W``, in float64."""
    return by_rough_gram(weight.double(), rank)


def by_rough_gram(weight: Tensor, rank: int) -> Tail:
    """The same in the precision of the weight."""
    u, v = (torch.linalg.eigh(gram).eigenvectors for gram in (weight @ weight.T, weight.T @ weight))
    return u[:, :rank], v[:, :rank]


def by_random_projection(weight: Tensor, rank: int) -> Tail:
    """What is orthogonal to the leading directions that a randomised SVD finds."""
    u, _, v = torch.svd_lowrank(weight, q=min(weight.shape) - rank)
    return complement(u), complement(v)


WAYS: Final[dict[str, Callable[[Tensor, int], Tail]]] = {
    "svd": by_svd,
    "gram64": by_gram,
    "gram32": by_rough_gram,
    "randomised": by_random_projection,
}


def random_weight(width: int) -> Tensor:
    """``(d, d)`` with 95 % of the energy in 55 % of the singular directions; the same always."""
    generator = torch.Generator().manual_seed(width)
    weight = torch.randn(width, width, generator=generator) / math.sqrt(width)
    return weight * torch.linspace(1, 0, width).sqrt()


def embedded_weights() -> list[Tensor]:
    """The attention weights of the embedded CLIP."""
    model = load_clip(BackboneSettings(**registry.benchmark("mini").backbone))
    return [layer.weight.detach() for _, layer in model.attention_linears()]


def errors(weight: Tensor, rank: int) -> dict[str, dict[str, float]]:
    """How far each way is from the tail that a float64 SVD finds.

    Returns:
        For each way ``angle``, the largest angle between the subspaces of output or input, in
        degrees, and ``energy``, the share of ``||W||^2`` in the directions of the input that it
        found, over that of the true ones.
    """
    exact = by_svd(weight.double(), rank)
    true = (weight.double() @ exact[1]).square().sum()
    found = {}
    for name, way in WAYS.items():
        with torch.random.fork_rng():  # a randomised SVD draws from the global generator
            torch.manual_seed(0)
            tail = way(weight, rank)
        angles = [principal_angles(a, b).max() for a, b in zip(exact, tail, strict=True)]
        energy = (weight.double() @ tail[1].double()).square().sum() / true
        found[name] = {"angle": float(max(angles)), "energy": float(energy)}
    return found


def decomposition_seconds(
    weight: Tensor, rank: int, repeats: int
) -> dict[str, dict[str, list[float]]]:
    """Time per weight of each way: weights one after the other, or as many at once as threads.

    Args:
        weight: ``(d, d)``, on any device.
        rank: directions of the tail.
        repeats: measurements of each.

    Returns:
        Way to ``in turn`` and ``at once`` to seconds per weight, one per repeat.
    """
    several = [weight] * torch.get_num_threads()
    found: dict[str, dict[str, list[float]]] = {}
    for name, way in WAYS.items():

        def decompose(one: Tensor, way: Callable[[Tensor, int], Tail] = way) -> Tail:
            return way(one, rank)

        alone = _seconds(lambda: decompose(weight), weight.device, repeats)
        both = _seconds(lambda: decompose_each(decompose, several), weight.device, repeats)
        found[name] = {"in turn": alone, "at once": [t / len(several) for t in both]}
    return found


def block_seconds(
    tower: Tower, batch: int, repeats: int, device: torch.device, tokens: int | None = None
) -> list[float]:
    """Time of one block of an encoder, forwards and backwards, as NuSA-CL trains.

    Args:
        tower: the encoder.
        batch: images or prompts.
        repeats: measurements, after one that is not counted.
        device: where.
        tokens: of a prompt that is cut after its end; all if None.
    """
    width = tower.width
    block = ResidualAttentionBlock(width, tower.heads, tower.mlp_ratio).requires_grad_(False)
    attention: Any = SplitAttention.from_packed(block.attn)
    factors = random_orthonormal(width, min(RANK, width), torch.Generator().manual_seed(0))
    for name in PROJECTIONS.values():
        layer = LowRankLinear(
            getattr(attention, name),
            factors.shape[1],
            low_rank_scale(ALPHA, RANK),
            dropout=DROPOUT,
            core=True,
            trained=("core",),
        )
        layer.set_factors(down=factors.T, up=factors)
        setattr(attention, name, layer)
    block.attn = attention
    block.to(device)
    length = tokens or tower.tokens
    x = torch.randn(batch, length, width, device=device, requires_grad=True)
    mask = torch.full((length, length), -math.inf, device=device).triu(1) if tower.causal else None

    def step() -> None:
        block.zero_grad()
        block(x, attn_mask=mask).sum().backward()

    step()
    return _seconds(step, device, repeats)


@contextmanager
def all_threads() -> Iterator[int]:
    """While open, PyTorch uses all cores that this process may use."""
    before = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _seconds(function: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    taken = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        function()
        wait()
        taken.append(time.perf_counter() - started)
    return taken
