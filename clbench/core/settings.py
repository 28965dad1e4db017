"""The resolved configuration of a run. Its hash names the run directory."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from clbench.core.identity import RENAMED, settings_hash

Steps = Annotated[int, Field(gt=0, le=10**9)]
BatchSize = Annotated[int, Field(gt=0, le=10**6)]
Processes = Annotated[int, Field(ge=0, le=1024)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Epochs = Annotated[float, Field(gt=0, le=10**6)]
Beta = Annotated[float, Field(ge=0, lt=1)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = TypeVar("Number", int, float)
Augmentation = Literal["none", "crop"]
Logger = Literal["csv", "tensorboard", "wandb"]


class Settings(BaseModel):
    """Base of all settings: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneSettings(Settings):
    """Which CLIP is adapted.

    Attributes:
        model: architecture, by open_clip's name, e.g. ``ViT-B-16``.
        weights: tag of open_clip (``openai``), a local file, ``package:file`` for weights inside an
            installed package, ``cache:file`` for some in the user's cache folder, or ``random`` for
            an untrained model.
    """

    model: str = "ViT-B-16"
    weights: str = "openai"

    @field_validator("weights")
    @classmethod
    def _present_name(cls, value: str) -> str:
        return RENAMED.get(value, value)


class BenchmarkSettings(Settings):
    """Which task sequence is run, with the options of its builder.

    Attributes:
        name: registry key, or ``folder:/path``.
        options: arguments of the builder.
    """

    name: str = "mini"
    options: dict[str, Any] = {}


class MethodSettings(Settings):
    """Which method is run, with its hyper-parameters.

    Attributes:
        name: registry key, ``package.module:Class`` or ``file.py:Class``.
        params: hyper-parameters.
        decides_by_batch: whether the class declares that an answer may depend on the other images
            of its batch, so that the batch size of tests is part of the hash.
    """

    name: str = "nusa"
    params: dict[str, Any] = {}
    decides_by_batch: bool = False


class TrainSettings(Settings):
    """Optimisation within a task: by default AdamW, linear warm-up, then cosine to zero.

    Attributes:
        steps: optimizer steps per task; a number, or a mapping from task name to number with
            the entry ``default`` for all others.
        epochs: passes over the task's training images, a number or a mapping like `steps`; stands
            for `steps` where it is given. A fraction of a batch counts as a step.
        batch_size: images per step.
        optimizer: ``adamw`` (decoupled weight decay), ``adam`` or ``sgd`` (coupled weight decay).
        lr: peak learning rate; a number or a mapping like `steps`.
        weight_decay: the optimizer's weight decay.
        betas: decay rates of AdamW and Adam.
        momentum: momentum of SGD.
        schedule: after the warm-up, ``cosine`` or ``linear`` decay to zero, or ``constant``.
        warmup: warm-up length; below 1 a fraction of the steps, else a number of steps.
        clip_grad_norm: largest norm of the gradient; None means no clipping.
        augmentation: ``none`` (the test transform) or ``crop`` (a random crop of 90 to 100 % of
            the image's area, as published for full fine-tuning).
    """

    steps: Steps | dict[str, Steps] = 1000
    batch_size: BatchSize = 64
    epochs: Epochs | dict[str, Epochs] | None = None
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: NonNegativeFloat | dict[str, NonNegativeFloat] = 1e-5
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: NonNegativeFloat = 100
    clip_grad_norm: PositiveFloat | None = None
    augmentation: Augmentation = "none"

    @field_validator("steps", "epochs", "lr")
    @classmethod
    def _has_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and "default" not in value:
            raise ValueError("a mapping by task needs the entry 'default'")
        return value

    def steps_for(self, task: str, images: int) -> int:
        """Optimizer steps of a task with so many training images.

        >>> TrainSettings(steps=7).steps_for("digits", 100)
        7
        >>> TrainSettings(epochs=1.5, batch_size=64).steps_for("digits", 100)
        3
        """
        if self.epochs is None:
            return _of_task(self.steps, task)
        batch = min(self.batch_size, images)
        return max(1, math.ceil(_of_task(self.epochs, task) * images / batch))

    def lr_for(self, task: str) -> float:
        """Peak learning rate of a task."""
        return _of_task(self.lr, task)

    @property
    def joint_lr(self) -> float:
        """Peak learning rate where all tasks are trained at once: that of tasks not named."""
        return self.lr["default"] if isinstance(self.lr, dict) else self.lr

    def warmup_steps(self, steps: int) -> int:
        """Warm-up steps out of `steps`.

        >>> TrainSettings(warmup=0.05).warmup_steps(1000)
        50
        >>> TrainSettings(warmup=100).warmup_steps(500)
        100
        """
        return round(self.warmup * steps) if self.warmup < 1 else int(self.warmup)


class EvaluationSettings(Settings):
    """How tests are run; changes speed, and results only of methods that decide by the batch.

    Attributes:
        batch_size: images per batch.
    """

    batch_size: BatchSize = 256


class CheckpointSettings(Settings):
    """How often a run saves within a task; it does after every task anyway.

    Attributes:
        steps: save after every so many optimizer steps; None means by time only.
        seconds: save when so many seconds have passed since the last time.
    """

    steps: Steps | None = None
    seconds: PositiveFloat = 300.0


class RunSettings(Settings):
    """Everything that decides the numbers of a run, and the few things that do not.

    Attributes:
        seed: training seed; in the run directory's name beside the hash.
        quick: a smoke run (few steps, few test images) whose numbers mean nothing.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast.
        device: ``auto``, ``cpu`` or ``cuda``; not part of the hash.
        workers: data-loading processes, None for a number that suits the machine; not part of
            the hash.
        compile: whether blocks go through `torch.compile`; not part of the hash.
        data_root: where data sets lie; not part of the hash.
        cache_root: where what is made of them is kept (decoded images, index files, hashes); None
            for beside them, or the user's cache folder where that cannot be written; not part of
            the hash.
        checkpoint_every: how often to save within a task; not part of the hash.
        devices: processes that share the training, each on its part of every batch.
        first_tasks: learn only so many tasks, the first of the order; None means all.
        tested_on: ``test``, or ``validation``: a fifth of the training images, which are then not
            trained on, so that settings can be searched without a look at a test image.
        deterministic: use kernels that give the same bits every time, on GPUs too.
        logger: where the run is tracked besides its directory, as a list or as names with commas
            between; not part of the hash.
        probes: what is measured at every row besides accuracies, as a list or as names with commas
            between; not part of the hash.
    """

    benchmark: BenchmarkSettings = BenchmarkSettings()
    method: MethodSettings = MethodSettings()
    backbone: BackboneSettings = BackboneSettings()
    train: TrainSettings = TrainSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    quick: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Processes | None = None
    compile: bool = False
    data_root: str | None = None
    cache_root: str | None = None
    checkpoint_every: CheckpointSettings = CheckpointSettings()
    devices: Annotated[int, Field(gt=0, le=1024)] = 1
    first_tasks: Annotated[int, Field(gt=0)] | None = None
    tested_on: Literal["test", "validation"] = "test"
    deterministic: bool = False
    logger: tuple[Logger, ...] = ("csv",)
    probes: tuple[str, ...] = ()

    @field_validator("logger", "probes", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return value
        parts = [part.strip() for name in names for part in name.split(",")]
        return tuple(dict.fromkeys(parts))

    def fingerprint(self) -> str:
        """Eight hex digits over everything that can change a number, except the seed."""
        return settings_hash(self.model_dump(mode="json"))


def _of_task(value: Number | dict[str, Number], task: str) -> Number:
    """A task's entry of a mapping by task, or the number that stands for all."""
    return value.get(task, value["default"]) if isinstance(value, dict) else value
