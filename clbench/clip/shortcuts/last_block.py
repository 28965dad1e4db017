"""The last block of an encoder, computed in full only where its output is read.

Assumes that the encoder's feature is read at one token, that everything in its last block but the
attention is computed token by token, and that nobody watches the block. `can_be_cut` checks that in
every pass: types must be open_clip's own, parts must declare to be token-wise
(`clbench.clip.layers.together`), and hooks or replaced methods let the whole block run.
``CLBENCH_PLAIN=last_block`` switches it off.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip import transformer as open_clip_transformer
from torch import Tensor

from clbench.clip.layers.attention import SplitAttention
from clbench.clip.layers.hooks import hooked
from clbench.clip.layers.together import is_token_wise
from clbench.core.plain import is_plain


def reads_class_token_only(vision: Any) -> bool:
    """Whether an image encoder is open_clip's ViT whose feature is that of the first token."""
    return (
        type(vision) is open_clip_transformer.VisionTransformer
        and hasattr(vision, "_embeds")
        and hasattr(vision, "_pool")
        and vision.pool_type == "tok"
        and vision.attn_pool is None
        and not vision.output_tokens
    )


def can_be_cut(transformer: Any) -> bool:
    """Whether `run_to_tokens` may stand for the transformer's own forward pass.

    It may not where a method has put a module of its own into the last block, which may look at
    several tokens, or hooks, which would then see fewer tokens than they expect.
    """
    if type(transformer) is not open_clip_transformer.Transformer or not transformer.batch_first:
        return False
    if is_plain("last_block"):
        return False
    last = transformer.resblocks[-1]
    _, *parts = last.modules()
    return (
        not transformer.grad_checkpointing
        and type(last) is open_clip_transformer.ResidualAttentionBlock
        and type(last.attn) is SplitAttention
        and all(is_token_wise(part) for part in parts if part is not last.attn)
        and not any(hooked(module) for module in (transformer, last, last.attn))
    )


def run_to_tokens(
    transformer: Any, x: Tensor, tokens: Tensor | int, attn_mask: Tensor | None = None
) -> Tensor:
    """Run the blocks, the last one at one token per sequence only.

    An encoder reads its feature at one token. In its last block the other tokens matter as keys
    and values alone: for ViT-B/16 this leaves out 6 to 7 % of the operations of either encoder.

    Args:
        transformer: a transformer that `can_be_cut`.
        x: ``(N, L, D)``.
        tokens: ``(N,)`` which token of each sequence, or the same for all.
        attn_mask: ``(L, L)``, see `SplitAttention.forward`.

    Returns:
        ``(N, 1, D)``.
    """
    *blocks, last = transformer.resblocks
    for block in blocks:
        x = block(x, attn_mask=attn_mask)
    normalised = last.ln_1(x)
    mask = None if attn_mask is None else attn_mask[tokens].view(-1, 1, 1, x.shape[1])
    attended = last.attention(_at(normalised, tokens), normalised, normalised, mask)
    x = _at(x, tokens) + last.ls_1(attended)
    cut: Tensor = x + last.ls_2(last.mlp(last.ln_2(x)))
    return cut


def _at(x: Tensor, tokens: Tensor | int) -> Tensor:
    """The given token of each sequence, ``(N, 1, D)``."""
    if isinstance(tokens, int):
        return x[:, tokens : tokens + 1]
    return x[torch.arange(len(x), device=x.device), tokens].unsqueeze(1)
