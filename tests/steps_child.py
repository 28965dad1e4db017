"""Trains LoRA, fine-tuning and NuSA-CL, and writes down the losses and weights of every step.

Started as one of several processes, it trains along with the others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from clbench.clip.subspaces.directions import NullFactors
from clbench.core.method import Method
from clbench.engine import runner
from clbench.engine.process.environment import follows
from clbench.engine.training.callbacks import LossCallback
from clbench.methods import nusa
from clbench.methods.finetune import Finetune
from clbench.methods.lora import LoRA
from tests.small_runs import run_small

METHODS: dict[str, tuple[type[Method], dict[str, Any]]] = {
    "lora": (LoRA, {"method__dropout": 0.0, "method__rank": 4}),
    "finetune": (Finetune, {"train__lr": 1e-4}),
    "nusa": (nusa.NuSA, {"method__dropout": 0.0, "method__rank": 16, "train__lr": 1e-2}),
}


def trained(
    name: str,
    tasks: Path,
    runs_dir: Path,
    devices: int,
    given: Sequence[NullFactors] = (),
    flipped: bool = False,
) -> dict[str, Any]:
    """What a run did: losses and trained weights after every step, accuracies, factors.

    Args:
        name: of the method.
        tasks: the tasks' folder.
        runs_dir: where the run is made.
        devices: processes that train. Of the 5 images of a step, two get 3 and 2.
        given: the singular directions that NuSA-CL takes, in place of those that it finds.
        flipped: whether it finds them with the other sign, which are as good.
    """
    cls, settings = METHODS[name]
    losses: list[float] = []
    weights: list[Tensor] = []
    factors: list[NullFactors] = []
    find = nusa.null_factors

    def after_step(method: Method) -> None:
        parts = [p.detach().flatten() for p in method.parameters() if p.requires_grad]
        weights.append(torch.cat(parts))

    def null_factors(*args: Any, **options: Any) -> NullFactors:
        found = given[len(factors)] if given else find(*args, **options)
        factors.append(found._replace(u=-found.u, v=-found.v) if flipped else found)
        return factors[-1]

    class EveryStep(LossCallback):
        """Reads the loss of every step."""

        def __init__(self, reporter: Any, log: Any, *args: Any, **options: Any) -> None:
            def noted(values: Any) -> None:
                losses.append(values["loss"])
                log(values)

            super().__init__(reporter, noted, *args, **options, interval=1)

    with (
        patch.object(cls, "after_step", after_step),
        patch.object(nusa, "null_factors", null_factors),
        patch.object(runner, "LossCallback", EveryStep),
    ):
        batch = {"devices": devices, "train__batch_size": 5}
        result = run_small(name, tasks, runs_dir, **batch, **settings)
    return {
        "losses": losses,
        "weights": weights,
        "factors": [tuple(each) for each in factors],
        "accuracy": result.accuracy.values,
        "launch": result.provenance["launch"],
    }


def main() -> None:
    """Train all methods one after the other; the leading process saves what they did."""
    tasks, runs_dir, out = map(Path, sys.argv[1:4])
    devices = int(sys.argv[4])
    given = [NullFactors(*each) for each in torch.load(sys.argv[5])] if sys.argv[5:] else []
    did = {name: trained(name, tasks, runs_dir, devices) for name in METHODS}
    if given:
        did["given"] = trained("nusa", tasks, runs_dir / "given", devices, given)
        signs = runs_dir / "signs"
        did["signs"] = trained("nusa", tasks, signs, devices, flipped=follows())
    if not follows():
        torch.save(did, out)


if __name__ == "__main__":
    main()
