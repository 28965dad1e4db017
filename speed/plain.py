"""Plain formulations, written from the papers' equations: what clbench is measured against.

Prompts fill the whole context, low-rank updates are built as full matrices, the teacher runs in
every step, null spaces come from a full SVD and act through dense projectors. This code is used
by the benchmarks and their tests only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - PyTorch's own convention

from clbench.clip.model import CLIP

State = Mapping[str, Tensor]
Update = Callable[[str, Tensor], Tensor | None]
"""Name of a projection and its input, to what is added to its output."""


def no_update(name: str, x: Tensor) -> None:
    """The model as it is."""


class Encoders(NamedTuple):
    """Both encoders as functions of a state dict; an update acts on the attention projections.

    Attributes:
        state: weights under open_clip's names, attention packed.
        heads: of vision and text.
        context: tokens per prompt, all of which are encoded.
    """

    state: State
    heads: tuple[int, int]
    context: int

    @classmethod
    def of(cls, model: CLIP, *, copy: bool = False) -> Encoders:
        """The encoders of a model, on its own weights or on a copy."""
        state = dict(model.export_state_dict())
        if not copy:
            own = model.network.state_dict(keep_vars=True)
            state = {name: own.get(name, value) for name, value in state.items()}
        blocks: Any = (model.blocks("vision")[0], model.blocks("text")[0])
        heads = (blocks[0].attn.num_heads, blocks[1].attn.num_heads)
        return cls(state, heads, model.context_length)

    def image(self, pixels: Tensor, update: Update = no_update) -> Tensor:
        """Unit-length features of normalised images ``(B, 3, H, W)``."""
        state = self.state
        kernel = state["visual.conv1.weight"]
        x = F.conv2d(pixels, kernel, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
        first = state["visual.class_embedding"].expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + state["visual.positional_embedding"]
        x = self._norm("visual.ln_pre", x)
        x = self._blocks("visual.transformer", x, self.heads[0], None, update)
        return F.normalize(self._norm("visual.ln_post", x[:, 0]) @ state["visual.proj"], dim=-1)

    def text(self, tokens: Tensor, update: Update = no_update) -> Tensor:
        """Unit-length features of ``(N, context)`` tokens."""
        state = self.state
        tokens = F.pad(tokens, (0, self.context - tokens.shape[1]))
        x = F.embedding(tokens, state["token_embedding.weight"]) + state["positional_embedding"]
        mask = torch.full((self.context, self.context), -math.inf, device=x.device).triu(1)
        x = self._norm("ln_final", self._blocks("transformer", x, self.heads[1], mask, update))
        ends = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
        return F.normalize(ends @ state["text_projection"], dim=-1)

    def _blocks(
        self, path: str, x: Tensor, heads: int, mask: Tensor | None, update: Update
    ) -> Tensor:
        depth = sum(name.endswith("ln_1.weight") for name in self.state if name.startswith(path))
        for i in range(depth):
            block = f"{path}.resblocks.{i}"
            x = x + self._attention(block, self._norm(f"{block}.ln_1", x), heads, mask, update)
            hidden = self._linear(f"{block}.mlp.c_fc", self._norm(f"{block}.ln_2", x))
            hidden = hidden * torch.sigmoid(1.702 * hidden)  # QuickGELU
            x = x + self._linear(f"{block}.mlp.c_proj", hidden)
        return x

    def _attention(
        self, block: str, x: Tensor, heads: int, mask: Tensor | None, update: Update
    ) -> Tensor:
        def split(y: Tensor) -> Tensor:
            apart: Tensor = y.unflatten(-1, (heads, -1))
            return apart.transpose(1, 2)

        def adapted(name: str, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            change = update(f"{block}.attn.{name}", y)
            plain = F.linear(y, weight, bias)
            return plain if change is None else plain + change

        weights = self.state[f"{block}.attn.in_proj_weight"].chunk(3)
        biases = self.state[f"{block}.attn.in_proj_bias"].chunk(3)
        names = ("q_proj", "k_proj", "v_proj")
        q, k, v = (
            split(adapted(*part, bias))
            for part, bias in zip(
                ((name, x, weight) for name, weight in zip(names, weights, strict=True)),
                biases,
                strict=True,
            )
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        output = f"{block}.attn.out_proj"
        joined = attended.transpose(1, 2).flatten(2)
        return adapted(
            "out_proj", joined, self.state[f"{output}.weight"], self.state[f"{output}.bias"]
        )

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.state[f"{name}.bias"])

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])


class MaterialisedUpdate:
    """``c U M V^T`` built in full for every projection and pass, with M trained.

    Args:
        factors: name of a projection to U ``(out, r)`` and V ``(in, r)``.
        scale: c.
        dropout: share of the update's input that is dropped.
    """

    def __init__(
        self, factors: Mapping[str, tuple[Tensor, Tensor]], scale: float, dropout: float
    ) -> None:
        self.factors = factors
        self.scale = scale
        self.dropout = dropout
        self.cores = {
            name: torch.zeros(u.shape[1], u.shape[1], device=u.device, requires_grad=True)
            for name, (u, _) in factors.items()
        }

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """What the update adds to the output of a projection."""
        u, v = self.factors[name]
        full = self.scale * u @ self.cores[name] @ v.T
        return F.linear(F.dropout(x, self.dropout), full)


def null_projector(gram: Tensor, rho: float) -> Tensor:
    """``P = V_n V_n^T`` by a full SVD: directions after which less than rho of the sum remains."""
    u, s, _ = torch.linalg.svd(gram)
    tail = s.flip(0).cumsum(0).flip(0)
    null = u[:, int((tail >= rho * s.sum()).sum()) :]
    projector: Tensor = null @ null.T
    return projector


def soft_cross_entropy(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """``-mean_i sum_j softmax(t / T)_ij log softmax(s / T)_ij T^2``."""
    soft = (teacher / temperature).softmax(1) * (student / temperature).log_softmax(1)
    return -soft.sum(1).mean() * temperature**2


def pair_losses(z: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """GNSP's distillation and 0.75 times its alignment, as published."""
    distilled = soft_cross_entropy(teacher, z, 2.0) + soft_cross_entropy(teacher.T, z.T, 2.0)
    same = (labels[:, None] == labels).float()
    targets = same / same.sum(1, keepdim=True)
    aligned = F.cross_entropy(z, targets, label_smoothing=0.2)
    return distilled + 0.75 * (aligned + F.cross_entropy(z.T, targets, label_smoothing=0.2))
