"""`clbench export`: the model of a run as a folder that needs clbench no more."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import open_clip
import torch
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.clip.weights.folders import WEIGHTS_FILE, write_backbone, write_open_clip
from clbench.clip.weights.transformers_folder import WEIGHTS_FILE as TRANSFORMERS_FILE
from clbench.clip.weights.transformers_folder import write_transformers
from clbench.core.errors import ClbenchError, unknown_name
from clbench.core.files import file_hash, write_atomic
from clbench.core.method import Method
from clbench.core.results.result import RunResult
from clbench.core.task import ClassTexts
from clbench.engine.rundir.checkpoints import FOLDER as CHECKPOINTS
from clbench.engine.rundir.checkpoints import Position
from clbench.report.card import Loading, model_card
from clbench.trained import (
    BACKBONE_FILE,
    RESULT_FILE,
    NotMergeableError,
    load_backbone,
    load_method,
    merged,
)

Format = Literal["open_clip", "hf"]
ALLOWED = 1e-5
"""Largest difference of a cosine similarity between the exported model and the run's own."""
IMAGES = 4
"""Images of noise, on which both are compared."""

_OPEN_CLIP = Loading(
    "open_clip",
    """
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:/path/to/this/folder")
tokenizer = open_clip.get_tokenizer("local-dir:/path/to/this/folder")
""",
    f"No other package is needed. `{WEIGHTS_FILE}` is also a backbone of clbench: "
    f"`clbench evaluate --backbone {WEIGHTS_FILE}`.",
)
_HF = Loading(
    "transformers",
    """
from transformers import CLIPModel, CLIPProcessor

model = CLIPModel.from_pretrained("/path/to/this/folder")
processor = CLIPProcessor.from_pretrained("/path/to/this/folder")
""",
    "No other package is needed.",
)
_METHOD = Loading(
    "clbench",
    """
import clbench

method = clbench.load_method("/path/to/this/folder")
logits = method.classify(images, candidates)
""",
    "This is no plain CLIP, so clbench and the method's own package are needed.",
)


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        folder: where.
        merged: whether it is a plain CLIP; else it is the whole method, for `clbench.load_method`.
        difference: the largest difference of a logit between the folder, loaded by open_clip alone,
            and the run's own; None where that was not compared.
        note: what the user should know.
    """

    folder: Path
    merged: bool
    difference: float | None
    note: str


def export(
    run: Path | str,
    out: Path | str,
    format: str = "open_clip",
    *,
    method: type[Method] | None = None,
    trust_code: bool = False,
) -> Exported:
    """Write the model of a run, with all updates merged, for open_clip or transformers.

    The folder holds weights as safetensors, the files that the library loads them by, a model card
    (``README.md``) and the result; nothing is pickled. A method whose answers
    are not those of a plain CLIP is written with all it needs, for `clbench.load_method`.

    Args:
        run: run directory.
        out: folder; made if missing, empty otherwise.
        format: ``open_clip`` or ``hf``.
        method: the method's class, for one that cannot be found by name, such as a notebook's.
        trust_code: import a method that the result names as ``module:Class`` or ``file.py:Class``.

    Raises:
        ClbenchError: there is no run with a sound checkpoint, the format has no place for the
            model, or the folder is not empty or cannot be written.
    """
    if format not in get_args(Format):
        raise unknown_name("format", format, get_args(Format))
    run, out = Path(run), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ClbenchError(f"{out} is not empty: choose another folder with --out, or remove it")
    result = RunResult.load(run)
    trained = load_method(run, method=method, trust_code=trust_code)
    images, candidates = probe(trained.model, result)
    own = _answers(trained, images, candidates)
    try:
        model = merged(trained)
    except NotMergeableError as error:
        _write_method(run, out, result)
        return Exported(out, False, None, str(error))
    facts: dict[str, str] = {}
    difference = None
    if format == "hf":
        write_transformers(model, out)
    else:
        write_open_clip(model, out)
        difference = _difference(own, open_clip_logits(out, images, candidates), model)
        facts["largest difference of a logit to the run's"] = f"{difference:.1e}"
    file = TRANSFORMERS_FILE if format == "hf" else WEIGHTS_FILE
    facts[f"SHA-256 of {file}"] = file_hash(out / file)
    _write_page(out, result, _HF if format == "hf" else _OPEN_CLIP, facts)
    return Exported(out, True, difference, _vocabulary_note(model))


def probe(model: CLIP, result: RunResult) -> tuple[Tensor, ClassTexts]:
    """Images of noise and a class per task, on which an exported model is compared."""
    generator = torch.Generator().manual_seed(0)
    side = model.image_size
    images = torch.randint(256, (IMAGES, 3, side, side), dtype=torch.uint8, generator=generator)
    return images, ClassTexts.from_templates(result.benchmark.tasks, ["a photo of a {}."])


def open_clip_logits(folder: Path, images: Tensor, classes: ClassTexts) -> Tensor:
    """Logits of an exported folder as open_clip computes them by itself, ``(B, C)``.

    Args:
        folder: as `write_open_clip` wrote it.
        images: ``(B, 3, H, W)`` uint8, of the model's size.
        classes: C classes, of which the first prompt is used.
    """
    with _quiet_open_clip():
        model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    normalise = transform.transforms[-1]
    tokens = tokenizer(list(classes.training_prompts))
    with torch.no_grad():
        features = model.encode_image(normalise(images / 255), normalize=True)
        logits: Tensor = model.logit_scale.exp() * (
            features @ model.encode_text(tokens, normalize=True).T
        )
    return logits


@torch.no_grad()
def _answers(method: Method, images: Tensor, candidates: ClassTexts) -> Tensor | None:
    """The method's own logits; None where it is more than a CLIP."""
    return method.classify(images, candidates) if method.answers_with_model else None


def _difference(own: Tensor | None, exported: Tensor, model: CLIP) -> float:
    assert own is not None  # what answers by itself was not merged
    difference = float((own - exported).abs().max())
    if not difference <= ALLOWED * float(model.logit_scale.exp()):
        raise ClbenchError(
            f"open_clip gives other logits than the run's own model, by up to {difference:.2g}: "
            "the exported folder must not be used"
        )
    return difference


def _write_page(out: Path, result: RunResult, loading: Loading, facts: dict[str, str]) -> None:
    write_atomic(out / RESULT_FILE, result.to_json())
    write_atomic(out / "README.md", model_card(result, loading, facts))


def _write_method(run: Path, out: Path, result: RunResult) -> None:
    """Copy what `load_method` reads: the checkpoint and the backbone."""
    write_backbone(load_backbone(run, result), out / BACKBONE_FILE)
    stem = Position(result.matrix.learned).stem
    try:
        (out / CHECKPOINTS).mkdir()
        for suffix in (".safetensors", ".json"):
            name = f"{CHECKPOINTS}/{stem}{suffix}"
            shutil.copyfile(run / name, out / name)
    except OSError as error:
        raise ClbenchError(f"cannot write into {out}: {error.strerror or error}") from error
    _write_page(out, result, _METHOD, {})


def _vocabulary_note(model: CLIP) -> str:
    """Say that a small model knows few words; empty for one that knows all."""
    few = getattr(model.tokenizer, "token_ids", None)
    return f"it knows {len(few)} tokens only; others stand in for the rest" if few else ""


@contextmanager
def _quiet_open_clip() -> Iterator[None]:
    """Keep what open_clip logs about every step of loading off the screen."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
