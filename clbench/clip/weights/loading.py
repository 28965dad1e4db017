"""Loading the backbone that a configuration names."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import open_clip

from clbench.clip.architecture import architecture, architecture_name, build
from clbench.clip.model import CLIP
from clbench.clip.tokenizer import Tokenizer
from clbench.clip.weights.described import described, undescribed
from clbench.clip.weights.files import SUFFIXES, Checkpoint, fill, read_checkpoint
from clbench.clip.weights.packages import IN_PACKAGE, packaged_file
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.files import cached_file
from clbench.core.settings import BackboneSettings


def load_clip(backbone: BackboneSettings, cache_dir: str | None = None) -> CLIP:
    """Load a CLIP in float32 on the CPU.

    ``backbone.weights`` is one of

    - an open_clip tag: downloaded once; normalisation and activation are the tag's own;
    - a file: ``.safetensors``, a PyTorch state dict, or OpenAI's TorchScript archive. Images are
      normalised as OpenAI's. A TorchScript archive implies QuickGELU, as OpenAI trained with it;
      any other file uses it where the name of ``backbone.model`` ends in ``-quickgelu``;
    - a safetensors file that describes itself by JSON metadata: ``model_cfg`` (open_clip
      configuration), and optionally ``token_ids`` (sorted ids of the kept tokens), ``mean`` and
      ``std``; ``backbone.model`` is then ignored, and the model is called what its configuration
      is (`architecture_name`);
    - ``package:file``: such a file inside an installed package, which is not imported; the model is
      called like the package;
    - ``cache:file``: a file in the user's cache folder, where what was made here lies;
    - ``random``: an untrained model, the same in every process.

    Args:
        backbone: architecture and weights.
        cache_dir: where downloads are kept; None means the libraries' own cache.

    Raises:
        ClbenchError: unknown architecture or tag, weights that cannot be had or read, or weights
            that do not fit.
    """
    weights = backbone.weights
    if weights == "random":
        return _assemble(backbone.model, architecture(backbone.model), None, weights)
    if path := _local_path(weights):
        checkpoint = read_checkpoint(path)
        if "model_cfg" in checkpoint.metadata:
            packaged = None if cached_file(weights) else IN_PACKAGE.fullmatch(weights)
            name = packaged["package"].rpartition(".")[2] if packaged else None
            return _self_described(path, checkpoint, name)
        config = architecture(backbone.model)
        quick_gelu = checkpoint.torchscript
        return _assemble(backbone.model, config, checkpoint, str(path), quick_gelu=quick_gelu)
    return _from_tag(backbone.model, weights, cache_dir)


def _local_path(weights: str) -> Path | None:
    """The file that `weights` names, existing or not; None where it is a tag."""
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if (kept := cached_file(weights) or packaged_file(weights)) is not None:
        return kept
    is_file = len(path.parts) > 1 or "/" in weights or path.suffix in SUFFIXES
    return path if is_file else None


def _from_tag(model: str, tag: str, cache_dir: str | None) -> CLIP:
    config = architecture(model)
    pretrained: dict[str, Any] = open_clip.get_pretrained_cfg(model, tag)
    if not pretrained:
        tags = open_clip.list_pretrained_tags_by_model(model)
        raise unknown_name(f"weights for {model}", tag, [*tags, "random"])
    path = _download(model, tag, pretrained, cache_dir)
    return _assemble(
        model,
        config,
        read_checkpoint(path),
        f"{model} {tag}",
        quick_gelu=bool(pretrained.get("quick_gelu")),
        normalisation=(pretrained["mean"], pretrained["std"]),
    )


def _download(model: str, tag: str, pretrained: Mapping[str, Any], cache_dir: str | None) -> Path:
    try:
        with _quiet_hub():
            return Path(open_clip.download_pretrained(dict(pretrained), cache_dir=cache_dir))
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        repository, _, file = pretrained["hf_hub"].rpartition("/")
        source = (
            f"{file or open_clip.constants.HF_SAFE_WEIGHTS_NAME} of https://huggingface.co/{repository}"
            if repository
            else pretrained["url"]
        )
        option = "--set backbone.weights=/path/to/file"
        if pretrained.get("quick_gelu") and not model.endswith("-quickgelu"):
            option += f" --set backbone.model={model}-quickgelu"
        raise ClbenchError(
            f"cannot download the weights {tag} of {model} ({type(error).__name__}): needed is "
            f"{source}; with a copy of that file, use {option}"
        ) from error


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub's retries and advice off the screen; what matters is raised as an error."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _self_described(path: Path, checkpoint: Checkpoint, name: str | None) -> CLIP:
    """The model of a file that carries its own configuration."""
    found = described(checkpoint.metadata, checkpoint.state, path)
    try:
        return _assemble(
            name or architecture_name(found.configuration),
            found.configuration,
            checkpoint,
            str(path),
            normalisation=(found.mean, found.std),
            token_ids=found.token_ids,
        )
    except ValueError as error:
        raise undescribed(path, str(error)) from error


def _assemble(
    name: str,
    config: Mapping[str, Any],
    checkpoint: Checkpoint | None,
    source: str,
    *,
    quick_gelu: bool = False,
    normalisation: tuple[Any, Any] = (None, None),
    token_ids: list[int] | None = None,
) -> CLIP:
    """Build the network, fill it with the weights if there are any, and wrap it."""
    network = build(config, quick_gelu)
    if checkpoint is not None:
        fill(network, checkpoint.state, source, name)
    context: int = network.context_length  # type: ignore[assignment]
    mean, std = normalisation
    return CLIP(
        network,
        Tokenizer(context, token_ids),
        mean or open_clip.OPENAI_DATASET_MEAN,
        std or open_clip.OPENAI_DATASET_STD,
        name,
        {**config, "quick_gelu": quick_gelu or bool(config.get("quick_gelu"))},
    )
