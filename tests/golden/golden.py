"""Reading the golden tensors and driving a method with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from safetensors import safe_open
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.core.data import Batch, TaskData
from clbench.core.method import Method
from clbench.core.task import ClassTexts, Task
from clbench.core.training import rate_factor

FOLDER = Path(__file__).parent
TASK = Task("golden", ClassTexts(("any",), (("any",),)))
READERS: list[Callable[[str, dict[str, Tensor]], None]] = []
"""Told name and tensors of every file that is read."""


class Golden(NamedTuple):
    """Tensors of one file and its metadata, decoded."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with a prefix, without it."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }


def read(name: str, folder: Path = FOLDER) -> Golden:
    """Read a file of golden tensors."""
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = {key: _decoded(value) for key, value in file.metadata().items()}
    for told in READERS:
        told(name, tensors)
    return Golden(tensors, metadata)


def build_clip(config: dict[str, Any], weights: dict[str, Tensor]) -> CLIP:
    """The CLIP of a golden file: OpenAI's architecture with QuickGELU.

    Weights that the file leaves out are zero.
    """
    vision = {
        "image_size": config["image_resolution"],
        "patch_size": config["vision_patch_size"],
        "width": config["vision_width"],
        "layers": config["vision_layers"],
        "head_width": 64,
    }
    text = {
        "context_length": config["context_length"],
        "vocab_size": config["vocab_size"],
        "width": config["transformer_width"],
        "heads": config["transformer_heads"],
        "layers": config["transformer_layers"],
    }
    network = open_clip.CLIP(config["embed_dim"], vision, text, quick_gelu=True)
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    assert weights.keys() <= state.keys()
    network.load_state_dict({**state, **weights})
    zeros = [0.0, 0.0, 0.0]
    return CLIP(network, open_clip.SimpleTokenizer(), zeros, [1.0, 1.0, 1.0], "golden")


def train(
    method: Method, golden: Golden, task: int, begun: Callable[[], None] = lambda: None
) -> list[float]:
    """Train a prepared method on one golden task as the golden run was; the loss of each step.

    Args:
        method: the method; `end_task` is left to the caller.
        golden: the file, which may hold fewer steps than the schedule has.
        task: index of the task.
        begun: called after `begin_task`.
    """
    hp = golden.metadata["hp"]
    data = golden.below(f"task{task}.")
    method.train()
    method.begin_task(TASK, None)  # type: ignore[arg-type] # methods without data needs
    begun()
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=hp["lr"], weight_decay=hp["wd"], betas=(0.9, 0.999))
    losses = []
    for step, (images, labels) in enumerate(zip(data["images"], data["labels"], strict=True)):
        rate = rate_factor(step, round(hp["warmup_ratio"] * hp["steps"]), hp["steps"])
        optimizer.param_groups[0]["lr"] = hp["lr"] * rate
        optimizer.zero_grad()
        loss = sum(method.loss(Batch(images, labels, data["tokens"])).values(), torch.tensor(0.0))
        loss.backward()
        method.after_backward()
        optimizer.step()
        method.after_step()
        losses.append(loss.item())
    method.eval()
    return losses


def train_on_pool(
    method: Method, golden: Golden, task: int, data: TaskData | None = None
) -> dict[str, Tensor]:
    """Train a prepared method on a golden task whose batches are drawn from a pool of images.

    Args:
        method: the method; `end_task` is left to the caller.
        golden: the file; `batches` are rows of `pool`, -1 pads a short one, `lr` is the rate of
            every step.
        task: index of the task.
        data: what `begin_task` receives.

    Returns:
        Every term of the loss, by name, before each update.
    """
    hp, recorded = golden.metadata["hp"], golden.below(f"task{task}.")
    method.train()
    method.begin_task(TASK, data)  # type: ignore[arg-type] # None for methods without data needs
    trained = [p for p in method.parameters() if p.requires_grad]
    betas, eps = tuple(hp["betas"]), hp["eps"]
    optimizer = torch.optim.AdamW(trained, weight_decay=hp["weight_decay"], betas=betas, eps=eps)
    terms: dict[str, list[Tensor]] = {}
    for rate, padded in zip(recorded["lr"].tolist(), recorded["batches"], strict=True):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        rows = padded[padded >= 0]
        images, labels = recorded["pool"][rows].float(), recorded["pool_labels"][rows]
        loss = method.loss(Batch(images, labels, recorded["tokens"].long()))
        torch.stack([*loss.values()]).sum().backward()
        method.after_backward()
        optimizer.step()
        method.after_step()
        for name, term in loss.items():
            terms.setdefault(name, []).append(term.detach())
    method.eval()
    return {name: torch.stack(values) for name, values in terms.items()}


def assert_merged_as_golden(model: CLIP, golden: Golden, atol: float = 1e-5) -> None:
    """Check logits and weights, to `atol`, after the first task's merge against the file."""
    tensors = golden.tensors
    texts = model.encode_text(tensors["task0.tokens"])
    logits = model.logits(tensors["task0.images"][0], texts)
    torch.testing.assert_close(logits, tensors["task0.logits"], atol=1e-3, rtol=0)
    expected = golden.below("task0.after.")
    assert len(expected) == 3
    for name, weight in expected.items():
        torch.testing.assert_close(merged_weight(model, name), weight, atol=atol, rtol=0)


def merged_weight(model: CLIP, name: str) -> Tensor:
    """A weight of a model with merged adapters, by its name in OpenAI's state dict."""
    attention: Any = model.get_submodule(f"network.{name.rsplit('.attn.')[0]}.attn")
    if name.endswith("in_proj_weight"):
        return torch.cat([getattr(attention, f"{p}_proj").base.weight for p in "qkv"])
    return attention.out_proj.base.weight


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
