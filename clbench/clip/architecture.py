"""Which open_clip architectures clbench adapts, and how they are built."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import open_clip
import torch
from torch import nn

from clbench.core.errors import ClbenchError, unknown_name

FOREIGN_TEXT = ("hf_model_name", "hf_tokenizer_name", "no_causal_mask", "embed_cls")
"""Keys of a text configuration that mean another encoder or tokenizer than CLIP's."""


def architecture(name: str) -> dict[str, Any]:
    """The open_clip configuration of an architecture.

    Raises:
        ClbenchError: open_clip does not know the name, or it is not a ViT CLIP.
    """
    config: dict[str, Any] | None = open_clip.get_model_config(name) if ":" not in name else None
    if config is None:
        raise unknown_name("CLIP architecture", name, _supported())
    if not is_supported(config):
        raise not_a_vit(name, "it has another image encoder, text encoder or tokenizer")
    return config


def architecture_name(config: Mapping[str, Any]) -> str:
    """What open_clip calls a configuration; the sizes of its image encoder if it has no name.

    >>> architecture_name(open_clip.get_model_config("ViT-B-16"))
    'ViT-B-16'
    >>> architecture_name(
    ...     {
    ...         "embed_dim": 8,
    ...         "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 4},
    ...         "text_cfg": {"width": 64, "heads": 2, "layers": 4},
    ...     }
    ... )
    'ViT-64x4-8'
    """
    sizes = _full(config)
    known = ((name, open_clip.get_model_config(name)) for name in open_clip.list_models())
    named: list[str] = [
        name for name, other in known if is_supported(other) and _full(other) == sizes
    ]
    if named:
        return min(named, key=len)
    vision = open_clip.CLIPVisionCfg(**config["vision_cfg"])
    return f"ViT-{vision.width}x{vision.layers}-{vision.patch_size}"


def _full(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """A configuration with all that it leaves to open_clip's defaults."""
    vision = open_clip.CLIPVisionCfg(**config["vision_cfg"])
    text = open_clip.CLIPTextCfg(**config["text_cfg"])
    return config["embed_dim"], vision, text, bool(config.get("quick_gelu"))


def is_supported(config: Mapping[str, Any]) -> bool:
    """Whether a configuration describes a ViT with a causal text encoder and CLIP's tokenizer."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    return (
        isinstance(vision.get("layers", 12), int)  # a ResNet has a list
        and isinstance(vision.get("image_size", 224), int)
        and "timm_model_name" not in vision
        and not config.keys() & {"multimodal_cfg", "custom_text"}
        and not text.keys() & set(FOREIGN_TEXT)
        and text.get("pool_type", "argmax") == "argmax"
    )


@cache
def _supported() -> tuple[str, ...]:
    names: list[str] = open_clip.list_models()
    return tuple(name for name in names if is_supported(open_clip.get_model_config(name)))


def build(config: Mapping[str, Any], quick_gelu: bool) -> nn.Module:
    """An untrained network, the same in every process; global random state stays as it is.

    Args:
        config: open_clip configuration.
        quick_gelu: use OpenAI's approximation of GELU even where the configuration does not.
    """
    options = {**config, "quick_gelu": quick_gelu or bool(config.get("quick_gelu"))}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = open_clip.CLIP(**options)
    return network.eval()


def check_towers(vision: Any, text: Any, name: str) -> None:
    """Check that both encoders are transformers as OpenAI's CLIP has them.

    Raises:
        ClbenchError: they are not.
    """
    for encoder, tower in (("image", vision), ("text", text)):
        blocks = getattr(getattr(tower, "transformer", None), "resblocks", None)
        if not blocks or not all(isinstance(block.attn, nn.MultiheadAttention) for block in blocks):
            raise not_a_vit(name, f"its {encoder} encoder has no residual attention blocks")
    if len(set(vision.image_size)) > 1:
        raise not_a_vit(name, "its images are not square")
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    causal = getattr(text, "attn_mask", None) is not None
    if pool != "argmax" or not causal or getattr(text, "cls_emb", None) is not None:
        raise not_a_vit(name, "its text encoder does not read the end of a causal sequence")


def not_a_vit(name: str, reason: str) -> ClbenchError:
    """The error for an architecture that methods cannot work on."""
    return ClbenchError(f"{name} is not a ViT CLIP: {reason}; choose e.g. ViT-B-16 or ViT-L-14")
