"""The resolved configuration of a run. Its hash names the run directory."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Augmentation = Literal["none", "crop"]
Logger = Literal["csv", "tensorboard", "wandb"]


class Settings(BaseModel):
    """Base of all settings: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BackboneSettings(Settings):
    """Which CLIP is adapted.

    Attributes:
        model: open_clip architecture, e.g. ``ViT-B-16``.
        weights: open_clip tag (``openai``), a local file, ``package:file`` for weights inside an
            installed package, or ``random`` for an untrained model.
    """

    model: str = "ViT-B-16"
    weights: str = "openai"


class BenchmarkSettings(Settings):
    """Which task sequence is run, with the options of its builder."""

    name: str = "mini"
    options: dict[str, Any] = {}


class MethodSettings(Settings):
    """Which method is run, with its hyper-parameters."""

    name: str = "nusa"
    params: dict[str, Any] = {}


class TrainSettings(Settings):
    """Optimisation within a task. AdamW, linear warm-up, then cosine to zero.

    Attributes:
        steps: optimizer steps per task; a number, or a mapping from task name to number with
            the entry ``default`` for all others.
        batch_size: images per step.
        lr: peak learning rate; a number or a mapping like `steps`.
        weight_decay: AdamW's decoupled weight decay.
        betas: AdamW's two decay rates.
        warmup: warm-up length; below 1 a fraction of the steps, else a number of steps.
        clip_grad_norm: largest norm of the gradient; None means no clipping.
        augmentation: ``none`` (the test transform) or ``crop`` (a random crop of 90 to 100 % of
            the image's area, as published for full fine-tuning).
    """

    steps: PositiveInt | dict[str, PositiveInt] = 1000
    batch_size: PositiveInt = 64
    lr: NonNegativeFloat | dict[str, NonNegativeFloat] = 1e-5
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: NonNegativeFloat = 100
    clip_grad_norm: Annotated[float, Field(gt=0)] | None = None
    augmentation: Augmentation = "none"

    @field_validator("steps", "lr")
    @classmethod
    def _has_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and "default" not in value:
            raise ValueError("a mapping by task needs the entry 'default'")
        return value

    def steps_for(self, task: str) -> int:
        """Optimizer steps of a task."""
        return (
            self.steps.get(task, self.steps["default"])
            if isinstance(self.steps, dict)
            else self.steps
        )

    def lr_for(self, task: str) -> float:
        """Peak learning rate of a task."""
        lr = self.lr
        return lr.get(task, lr["default"]) if isinstance(lr, dict) else lr

    def warmup_steps(self, steps: int) -> int:
        """Warm-up steps out of `steps`.

        >>> TrainSettings(warmup=0.05).warmup_steps(1000)
        50
        >>> TrainSettings(warmup=100).warmup_steps(500)
        100
        """
        return round(self.warmup * steps) if self.warmup < 1 else int(self.warmup)


class EvaluationSettings(Settings):
    """How tests are run; changes speed, not results."""

    batch_size: PositiveInt = 256


class CheckpointSettings(Settings):
    """How often a run saves within a task; it does after every task anyway.

    Attributes:
        steps: save after every so many optimizer steps; None means by time only.
        seconds: save when so many seconds have passed since the last time.
    """

    steps: PositiveInt | None = None
    seconds: Annotated[float, Field(gt=0)] = 300.0


class RunSettings(Settings):
    """Everything that decides the numbers of a run, and the few things that do not.

    Attributes:
        quick: a smoke run (few steps, few test images) whose numbers mean nothing.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast.
        device: ``auto``, ``cpu`` or ``cuda``; not part of the hash.
        workers: data-loading processes, None for a number that suits the machine; not part of
            the hash.
        compile: whether blocks go through `torch.compile`; not part of the hash.
        data_root: where data sets lie; not part of the hash.
        checkpoint_every: how often to save within a task; not part of the hash.
        devices: processes that share the training, each on its part of every batch.
        deterministic: use kernels that give the same bits every time, on GPUs too.
        logger: where the run is tracked besides its directory, as a list or as names with commas
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
    workers: Annotated[int, Field(ge=0)] | None = None
    compile: bool = False
    data_root: str | None = None
    checkpoint_every: CheckpointSettings = CheckpointSettings()
    devices: PositiveInt = 1
    deterministic: bool = False
    logger: tuple[Logger, ...] = ("csv",)

    @field_validator("logger", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return value
        parts = [part.strip() for name in names for part in name.split(",")]
        return tuple(dict.fromkeys(parts))

    def fingerprint(self) -> str:
        """Eight hex digits over everything that can change a number, except the seed."""
        indifferent = {"seed", "device", "workers", "data_root", "evaluation", "logger"}
        indifferent |= {"checkpoint_every", "compile"}
        # Settings that came later leave the hash of older runs as it was unless they are used.
        fields, later = type(self).model_fields, ("deterministic", "devices")
        indifferent |= {name for name in later if getattr(self, name) == fields[name].default}
        decisive = self.model_dump(mode="json", exclude=indifferent)
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
