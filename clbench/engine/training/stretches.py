"""What is trained at a stretch: one task or, for a method that trains at once, all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clbench.core.data import SequenceData
from clbench.core.settings import RunSettings
from clbench.core.task import Setting
from clbench.core.training import TrainingPlan
from clbench.engine.training.method_data import MethodData

Tokenize = Callable[[Sequence[str]], Tensor]
Loader = Any
"""Of batches of images and labels."""


@dataclass(frozen=True)
class Stretch:
    """Steps under one schedule.

    Attributes:
        plan: how many, and the learning rate.
        images: of a step, in all processes together.
        prompts: ``(C, L)`` tokenised training prompts of the classes.
        tasks: ``(C,)`` the task of each class; None if there is one.
        loader: returns the batches from a step on; of each, process ``share[0]`` of ``share[1]``
            gets its part.
    """

    plan: TrainingPlan
    images: int
    prompts: Tensor
    tasks: Tensor | None
    loader: Callable[[int, tuple[int, int]], Loader]


def stretch_of_task(
    settings: RunSettings, sequence: SequenceData, task: int, data: MethodData, tokenize: Tokenize
) -> Stretch:
    """The training of one task."""
    train, spec = settings.train, sequence.benchmark.tasks[task]
    steps = train.steps_for(spec.name, len(data))

    def loader(start: int, share: tuple[int, int]) -> Loader:
        return sequence.train_loader(
            task,
            batch_size=train.batch_size,
            steps=steps,
            seed=settings.seed,
            augmentation=train.augmentation,
            start=start,
            share=share,
            chosen=data.chosen,
        )

    plan = TrainingPlan(steps, train.lr_for(spec.name), train)
    images = min(train.batch_size, len(data))
    return Stretch(plan, images, tokenize(spec.classes.training_prompts), None, loader)


def stretch_of_all(settings: RunSettings, sequence: SequenceData, tokenize: Tokenize) -> Stretch:
    """The training of all tasks at once, with the steps that they have together."""
    train, tasks = settings.train, sequence.benchmark.tasks
    steps = [train.steps_for(task.name, len(sequence.train_set(task.index))) for task in tasks]

    def loader(start: int, share: tuple[int, int]) -> Loader:
        return sequence.joint_loader(
            batch_size=train.batch_size,
            steps=steps,
            seed=settings.seed,
            augmentation=train.augmentation,
            start=start,
            share=share,
        )

    if sequence.benchmark.setting is Setting.DOMAIN_INCREMENTAL:
        tasks = tasks[:1]  # the others have the same classes
    prompts = tokenize([text for task in tasks for text in task.classes.training_prompts])
    owners = torch.tensor([task.index for task in tasks for _ in task.classes.ids])
    plan = TrainingPlan(sum(steps), train.joint_lr, train)
    return Stretch(plan, train.batch_size, prompts, owners.to(prompts.device), loader)
