"""Writing a CLIP as a folder that open_clip loads by itself, or as one file that clbench loads."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
from safetensors.torch import save_file
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.clip.tokenizer import Tokenizer
from clbench.core.errors import ClbenchError
from clbench.core.files import write_atomic

CONFIG_FILE: str = open_clip.constants.HF_CONFIG_NAME
WEIGHTS_FILE: str = open_clip.constants.HF_SAFE_WEIGHTS_NAME
EMBEDDING = "token_embedding.weight"


def write_open_clip(model: CLIP, folder: Path) -> None:
    """Write ``open_clip_config.json`` and ``open_clip_model.safetensors``; nothing is pickled.

    ``open_clip.create_model_and_transforms("local-dir:FOLDER")`` loads them, and
    ``open_clip.get_tokenizer("local-dir:FOLDER")`` is the tokenizer. The weights file describes
    itself, so that it is also a backbone of clbench.

    Args:
        model: without adapters.
        folder: made if missing.

    Raises:
        ValueError: adapters are still attached.
        ClbenchError: the model has no known architecture or another tokenizer than CLIP's, or the
            folder cannot be written.
    """
    config, state = full_vocabulary(model)
    mean, std = channels(model.mean), channels(model.std)
    content = {
        "model_cfg": config,
        "preprocess_cfg": {
            "mean": mean,
            "std": std,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }
    write_atomic(folder / CONFIG_FILE, json.dumps(content, indent=2) + "\n")
    write_tensors(folder / WEIGHTS_FILE, state, _described(config, mean, std))


def write_backbone(model: CLIP, path: Path) -> None:
    """Write a model as one safetensors file that describes itself, as `load_clip` reads it.

    Unlike in `write_open_clip`, a reduced vocabulary stays reduced, so that the weights have the
    fingerprint that they had.

    Raises:
        ValueError: adapters are still attached.
        ClbenchError: as in `write_open_clip`.
    """
    tokenizer = _tokenizer(model)
    described = _described(_config(model), channels(model.mean), channels(model.std))
    if tokenizer.token_ids is not None:
        described["token_ids"] = json.dumps(tokenizer.token_ids)
    write_tensors(path, model.export_state_dict(), described)


def full_vocabulary(model: CLIP) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of a model that takes the ids of CLIP's own tokenizer.

    A reduced vocabulary is written out: every id of the full one has the embedding that the model
    uses for it, that of another word included where its own is missing. Texts have the features
    that they had.

    Returns:
        The open_clip configuration and the weights under open_clip's names.

    Raises:
        ValueError: adapters are still attached.
        ClbenchError: the model has no known architecture or another tokenizer.
    """
    config, state = _config(model), model.export_state_dict()
    state = {name: value.cpu().contiguous() for name, value in state.items()}
    if (ids := _tokenizer(model).all_ids()) is not None:
        state[EMBEDDING] = state[EMBEDDING][ids]
        config["text_cfg"]["vocab_size"] = len(ids)
    return config, state


def channels(values: Tensor) -> list[float]:
    """Three numbers with the digits that float32 keeps.

    >>> import torch
    >>> channels(torch.tensor([0.48145466, 0.5, 0.25]).view(1, 3, 1, 1))
    [0.48145467, 0.5, 0.25]
    """
    return [float(str(value)) for value in values.flatten().numpy(force=True).astype(np.float32)]


def write_tensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file in one step.

    Raises:
        ClbenchError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(dict(state), temporary, {"format": "pt", **metadata})
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ClbenchError(f"cannot write {path}: {error.strerror or error}") from error


def _config(model: CLIP) -> dict[str, Any]:
    if model.config is None:
        raise ClbenchError(
            f"the configuration of {model.name} is not known, so that nobody could build it again: "
            "give CLIP(..., config=...) the open_clip configuration of its network"
        )
    return deepcopy(dict(model.config))


def _tokenizer(model: CLIP) -> Tokenizer:
    if not isinstance(model.tokenizer, Tokenizer):
        kind = type(model.tokenizer).__name__
        raise ClbenchError(f"{model.name} has a tokenizer of its own ({kind}), not CLIP's")
    return model.tokenizer


def _described(config: Mapping[str, Any], mean: list[float], std: list[float]) -> dict[str, str]:
    values = {"model_cfg": config, "mean": mean, "std": std}
    return {key: json.dumps(value) for key, value in values.items()}
