"""Lightning trainers as a run needs them: on one device, silent, leaving signals alone."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from clbench.core.errors import ClbenchError
from clbench.core.settings import RunSettings
from clbench.engine.process.stopping import StopRequest
from clbench.engine.process.world import ALONE, World


class Started(LightningEnvironment):
    """Tells a trainer which process it is in: each counts as a node with one device.

    Slurm and torchrun start runs, not trainers, so no trainer looks for them.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self._rank = world.rank

    @property
    def creates_processes_externally(self) -> bool:
        """Always: a trainer starts no processes."""
        return True

    def local_rank(self) -> int:
        """Number among the devices of this process, which has one."""
        return 0

    def node_rank(self) -> int:
        """Number of the process."""
        return self._rank

    def teardown(self) -> None:
        """Leave the environment alone."""


PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_trainer(
    settings: RunSettings,
    device: torch.device,
    folder: Path,
    callbacks: list[pl.Callback],
    world: World = ALONE,
    **options: Any,
) -> pl.Trainer:
    """A trainer for one task or one test.

    Args:
        settings: precision and clipping.
        device: where to compute.
        folder: Lightning's default folder; nothing is written there.
        callbacks: in the order they are called.
        world: the processes that train together.
        **options: further arguments of `Trainer`.
    """
    if device.type == "cpu":
        # Lightning sets this, and every optimizer step would open the driver to count GPUs.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    return pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[torch.cuda.current_device()] if world.size > 1 and device.type == "cuda" else 1,
        num_nodes=world.size,
        strategy="auto" if world.size == 1 else DDPStrategy(broadcast_buffers=False),
        plugins=Started(world),
        use_distributed_sampler=False,
        precision=PRECISIONS[settings.precision],  # type: ignore[arg-type]
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=settings.train.clip_grad_norm,
        default_root_dir=folder,
        **options,
    )


def choose_device(settings: RunSettings) -> torch.device:
    """The device that the settings ask for.

    Raises:
        ClbenchError: there is none.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ClbenchError("device=cuda, but no CUDA device is available: use device=cpu")
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


@contextmanager
def interruptible(stop: StopRequest) -> Iterator[None]:
    """Let Ctrl-C be a `KeyboardInterrupt` again: Lightning exits with 1 and ignores the next."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        stop.check()
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep Lightning's banners, tips and hints for other use cases off the console."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
