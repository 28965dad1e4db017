"""Writing a CLIP as a folder for Hugging Face's transformers.

The names of tensors and settings are those of ``CLIPModel`` and its tokenizer and image processor;
transformers itself is not needed to write them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import open_clip
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.clip.tokenizer import byte_pairs
from clbench.clip.weights.folders import channels, full_vocabulary, write_tensors
from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic

HELD: Final = {
    "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"},
    "text_cfg": {"context_length", "vocab_size", "layers", "width", "heads", "mlp_ratio"},
}
"""Settings of open_clip that ``CLIPModel`` has, too; others must be as by default."""
WITHOUT_EFFECT: Final = frozenset({"patch_dropout", "output_tokens"})
"""Settings that change nothing at test."""
WHOLE: Final = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
}
TRANSPOSED: Final = {
    "text_projection": "text_projection.weight",
    "visual.proj": "visual_projection.weight",
}
"""open_clip stores them as in x out."""
MODULES: Final = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layrnorm",  # their spelling
    "visual.ln_post": "vision_model.post_layernorm",
}
BLOCKS: Final = {
    "transformer.resblocks.": "text_model.encoder.layers.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
}
IN_BLOCK: Final = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
PACKED: Final = ("q_proj", "k_proj", "v_proj")
END: Final = "<|endoftext|>"
START: Final = "<|startoftext|>"
WEIGHTS_FILE: Final = "model.safetensors"


def write_transformers(model: CLIP, folder: Path) -> None:
    """Write a folder that ``transformers.CLIPModel.from_pretrained`` and ``CLIPProcessor`` load.

    It holds ``config.json``, ``model.safetensors``, ``preprocessor_config.json`` and the files of
    the tokenizer.

    Args:
        model: without adapters.
        folder: made if missing.

    Raises:
        ValueError: adapters are still attached.
        ClbenchError: ``CLIPModel`` has no place for something in the model, its architecture is
            not known or its tokenizer not CLIP's, or the folder cannot be written.
    """
    config, state = full_vocabulary(model)
    _require_held(config, model.name)
    weights = dict(_renamed(state, model.name))
    files: dict[str, Any] = {
        "config.json": _model_config(config, state),
        "preprocessor_config.json": _image_processor(model),
        **_tokenizer_files(model.context_length),
    }
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        write_atomic(folder / name, text)
    write_tensors(folder / WEIGHTS_FILE, weights, {})


def _require_held(config: Mapping[str, Any], name: str) -> None:
    """Refuse settings that CLIPModel does not have.

    Raises:
        ClbenchError: names the first.
    """
    defaults = {"vision_cfg": open_clip.CLIPVisionCfg(), "text_cfg": open_clip.CLIPTextCfg()}
    for section, standard in defaults.items():
        for key, value in config[section].items():
            held = HELD[section] | WITHOUT_EFFECT
            if key not in held and value != getattr(standard, key, None):
                raise _no_place(name, f"{section}.{key}={value!r}")


def _no_place(name: str, what: str) -> ClbenchError:
    return ClbenchError(f"transformers' CLIPModel has no place for {what} of {name}: use open_clip")


def _renamed(state: Mapping[str, Tensor], model: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        if name in WHOLE:
            yield WHOLE[name], value
        elif name in TRANSPOSED:
            yield TRANSPOSED[name], value.T.contiguous()
        elif (module := name.rpartition(".")[0]) in MODULES:
            yield name.replace(module, MODULES[module]), value
        else:
            yield from _of_block(name, value, model)


def _of_block(name: str, value: Tensor, model: str) -> Iterator[tuple[str, Tensor]]:
    prefix = next((prefix for prefix in BLOCKS if name.startswith(prefix)), None)
    if prefix is None:
        raise _no_place(model, name)
    number, _, inner = name.removeprefix(prefix).partition(".")
    block = f"{BLOCKS[prefix]}{number}"
    module, _, part = inner.rpartition(".")
    if module in IN_BLOCK:
        yield f"{block}.{IN_BLOCK[module]}.{part}", value
    elif module == "attn" and part in ("in_proj_weight", "in_proj_bias"):
        for short, rows in zip(PACKED, value.chunk(3), strict=True):
            kind = part.removeprefix("in_proj_")
            yield f"{block}.self_attn.{short}.{kind}", rows.contiguous()
    else:
        raise _no_place(model, name)


def _model_config(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    vision, text = config["vision_cfg"], config["text_cfg"]
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    shared = {"hidden_act": activation, "layer_norm_eps": 1e-5, "attention_dropout": 0.0}
    width, context = state["positional_embedding"].shape[1], len(state["positional_embedding"])
    tokens = len(state["token_embedding.weight"])
    wide = state["visual.class_embedding"].shape[0]
    text_config = {
        "model_type": "clip_text_model",
        **shared,
        **_depth(state, "transformer.resblocks."),
        "hidden_size": width,
        "num_attention_heads": text.get("heads", open_clip.CLIPTextCfg.heads),
        "max_position_embeddings": context,
        "vocab_size": tokens,
        "bos_token_id": tokens - 2,
        "eos_token_id": tokens - 1,
        "pad_token_id": tokens - 1,
    }
    vision_config = {
        "model_type": "clip_vision_model",
        **shared,
        **_depth(state, "visual.transformer.resblocks."),
        "hidden_size": wide,
        "num_attention_heads": wide // vision.get("head_width", open_clip.CLIPVisionCfg.head_width),
        "image_size": vision.get("image_size", open_clip.CLIPVisionCfg.image_size),
        "patch_size": state["visual.conv1.weight"].shape[-1],
    }
    embedding = config["embed_dim"]
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": embedding,
        "text_config": {**text_config, "projection_dim": embedding},
        "vision_config": {**vision_config, "projection_dim": embedding},
    }


def _depth(state: Mapping[str, Tensor], prefix: str) -> dict[str, int]:
    """Number of blocks, and width of their MLPs."""
    hidden = [len(v) for k, v in state.items() if k.startswith(prefix) and "c_fc.bias" in k]
    return {"num_hidden_layers": len(hidden), "intermediate_size": hidden[0]}


def _image_processor(model: CLIP) -> dict[str, Any]:
    side = model.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": channels(model.mean),
        "image_std": channels(model.std),
    }


def _tokenizer_files(context: int) -> dict[str, Any]:
    """CLIP's vocabulary and merges as open_clip brings them, in the files of a CLIPTokenizer."""
    words, merges = byte_pairs()
    vocabulary = {**words, START: len(words), END: len(words) + 1}
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": context, **special}
    lines = "".join(f"{first} {second}\n" for first, second in merges)
    return {
        "vocab.json": json.dumps(vocabulary, ensure_ascii=False),
        "merges.txt": f"#version: 0.2\n{lines}",
        "tokenizer_config.json": settings,
        "special_tokens_map.json": special,
    }
