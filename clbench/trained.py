"""What a run has trained: its method as the last task left it, and the plain CLIP in it."""

from __future__ import annotations

from pathlib import Path

from clbench import config
from clbench.clip.adapters.attach import detach
from clbench.clip.model import CLIP
from clbench.clip.weights.loading import load_clip
from clbench.core.errors import ClbenchError
from clbench.core.method import Method
from clbench.core.results.result import RunResult
from clbench.core.settings import BackboneSettings
from clbench.engine.retesting import restore

BACKBONE_FILE = "backbone.safetensors"
"""In an exported folder: what the method started from."""
RESULT_FILE = "clbench_result.json"
"""In an exported folder: the result of the run. Reports do not take the folder for a run."""


class NotMergeableError(ClbenchError):
    """What a method has learned does not fit into a plain CLIP; the message says why."""


def load_method(
    path: Path | str, *, method: type[Method] | None = None, trust_code: bool = False
) -> Method:
    """The method of a run, on the CPU, as the last task left it.

    ``method.classify(images, candidates)`` answers as in the run's last test.

    Args:
        path: run directory, or a folder that `clbench export` made of one.
        method: the method's class, for one that cannot be found by name, such as a notebook's.
        trust_code: import a method that the result names as ``module:Class`` or ``file.py:Class``.

    Raises:
        ClbenchError: there is no run with a sound checkpoint, its backbone is missing or has other
            weights now, or the checkpoint does not fit the method.
    """
    folder = Path(path)
    exported = folder / RESULT_FILE
    result = RunResult.load(exported if exported.is_file() else folder)
    if not folder.is_dir():
        raise ClbenchError(f"{folder} is a result without its model: name the run directory")
    learned = result.matrix.learned
    if not learned:
        raise ClbenchError(f"the run in {folder} has not learned a task yet: go on with it first")
    settings, cls = config.revive(result.config, method, trust_code=trust_code)
    model = load_backbone(folder, result)
    loaded = cls(**settings.method.params)
    restore(loaded, model, folder, learned, settings.seed)
    return loaded


def load_backbone(folder: Path, result: RunResult) -> CLIP:
    """The CLIP that a run started from.

    Raises:
        ClbenchError: its weights cannot be had, or are others now.
    """
    own = folder / BACKBONE_FILE
    stated = {"model": result.backbone.model, "weights": result.backbone.weights}
    backbone = BackboneSettings(**({"weights": str(own)} if own.is_file() else stated))
    model = load_clip(backbone)
    if model.fingerprint() != result.backbone.fingerprint:
        raise ClbenchError(
            f"the weights {backbone.weights} are not those that the run in {folder} started from: "
            "put them back"
        )
    return model


def load_model(
    path: Path | str, *, method: type[Method] | None = None, trust_code: bool = False
) -> CLIP:
    """The CLIP that a run has trained, on the CPU, with all updates merged.

    ``model.logits(images, model.class_features(classes))`` are its answers.

    Args:
        path: run directory.
        method: as in `load_method`.
        trust_code: as in `load_method`.

    Raises:
        NotMergeableError: the method's answers are not those of a plain CLIP; see `load_method`.
        ClbenchError: as in `load_method`.
    """
    return merged(load_method(path, method=method, trust_code=trust_code))


def merged(method: Method) -> CLIP:
    """The plain CLIP in a method; its low-rank layers are merged and taken out of the model.

    Raises:
        NotMergeableError: the method answers in a way of its own, or the model holds more than a
            CLIP.
    """
    if not method.answers_with_model:
        raise NotMergeableError(
            f"method {method.name!r} cannot be merged into a CLIP: it answers by a classify of its "
            "own; clbench.load_method has all of it"
        )
    model = method.model
    detach(model)
    try:
        model.export_state_dict()
    except ValueError as error:
        raise NotMergeableError(
            f"method {method.name!r} cannot be merged into a CLIP: {error}; "
            "clbench.load_method has all of it"
        ) from error
    return model.requires_grad_(False)
