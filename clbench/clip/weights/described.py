"""What a weights file may say about itself, checked before a network is built from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from clbench.clip.architecture import build
from clbench.clip.weights.files import check_fit
from clbench.core.errors import ClbenchError

VOCABULARY: Final = 49408
"""Tokens of CLIP's byte-pair encoding."""

Size = Annotated[int, Field(ge=1, le=2**16)]
Layers = Annotated[int, Field(ge=1, le=1024)]
Ratio = Annotated[float, Field(gt=0, le=64)]
Unit = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(gt=0, le=1)]


class Part(BaseModel):
    """Base of all parts: unknown keys, NaN and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class VisionConfig(Part):
    """open_clip's ``vision_cfg``, of a ViT."""

    image_size: Annotated[int, Field(ge=1, le=1024)] = 224
    patch_size: Size = 16
    width: Size = 768
    layers: Layers = 12
    head_width: Size = 64
    mlp_ratio: Ratio = 4.0
    ls_init_value: float | None = None
    no_ln_pre: bool = False
    final_ln_after_pool: bool = False
    pool_type: Literal["tok", "avg"] = "tok"


class TextConfig(Part):
    """open_clip's ``text_cfg``, of a causal transformer with CLIP's tokenizer."""

    context_length: Annotated[int, Field(ge=3, le=4096)] = 77
    vocab_size: Annotated[int, Field(ge=3, le=VOCABULARY)] = VOCABULARY
    width: Size = 512
    heads: Size = 8
    layers: Layers = 12
    mlp_ratio: Ratio = 4.0
    ls_init_value: float | None = None
    pool_type: Literal["argmax"] = "argmax"


class ModelConfig(Part):
    """open_clip's configuration of a CLIP."""

    embed_dim: Size
    vision_cfg: VisionConfig
    text_cfg: TextConfig
    quick_gelu: bool = False


class Description(Part):
    """The metadata of a file that describes itself.

    Attributes:
        model_cfg: the configuration.
        token_ids: sorted ids of the kept tokens; None for all.
        mean: of the RGB channels; None for OpenAI's.
        std: of the RGB channels; None for OpenAI's.
    """

    model_cfg: ModelConfig
    token_ids: list[Annotated[int, Field(ge=0, lt=VOCABULARY)]] | None = None
    mean: tuple[Unit, Unit, Unit] | None = None
    std: tuple[Spread, Spread, Spread] | None = None

    @property
    def configuration(self) -> dict[str, Any]:
        """What open_clip builds the network from."""
        return self.model_cfg.model_dump(exclude_unset=True)


def described(metadata: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> Description:
    """The metadata of a weights file, if they describe the weights beside them.

    A network of the described shape is first made without memory, so that none is taken for one
    that the file does not hold.

    Args:
        metadata: decoded values.
        state: tensors of the file.
        path: the file, for errors.

    Raises:
        ClbenchError: they describe no CLIP, or another than the tensors are of.
    """
    known = {key: metadata[key] for key in Description.model_fields if key in metadata}
    try:
        found = Description.model_validate_json(json.dumps(known))
    except (ValidationError, RecursionError) as error:
        raise undescribed(path, _first_problem(error)) from error
    config, kept = found.model_cfg, found.token_ids
    if config.vision_cfg.layers + config.text_cfg.layers > len(state):
        raise undescribed(path, "model_cfg has more layers than the file has tensors")
    if config.text_cfg.vocab_size != (VOCABULARY if kept is None else len(kept)):
        raise undescribed(path, "vocab_size is not the number of tokens")
    try:
        with torch.device("meta"):
            network = build(found.configuration, quick_gelu=False)
    except Exception as error:  # open_clip promises nothing for sizes that do not go together
        raise undescribed(path, " ".join(str(error).split())[:200]) from error
    check_fit(network, state, str(path), "its model_cfg")
    return found


def undescribed(path: Path, reason: str) -> ClbenchError:
    """The error for metadata that describe no model."""
    return ClbenchError(
        f"the metadata of {path} do not describe a model: {reason}; save the file without them and "
        "choose its architecture with --set backbone.model=NAME"
    )


def _first_problem(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    problem = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].lower()}"
