"""Runs methods of the ZSCL family on golden tasks as the released code ran, and compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clbench.clip.model import CLIP
from clbench.core.data import Batch
from clbench.core.method import Method
from clbench.core.task import ClassTexts, Task
from tests.golden.golden import FOLDER, Golden, build_clip, read


class NumberTokenizer:
    """Texts are numbers of rows of recorded tokens."""

    def __init__(self, tokens: Tensor, vocabulary: int) -> None:
        self.tokens = tokens.to(torch.int64)
        self.vocab_size = vocabulary
        self.sot_token_id, self.eot_token_id = vocabulary - 2, vocabulary - 1

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.tokens[[int(text) for text in texts]]


class Recorded:
    """A task's data: the reference batches that the released code drew."""

    source, nbytes = "golden", 0

    def __init__(self, pool: Tensor, rows: Tensor, texts: int) -> None:
        self._pool, self._rows = pool, rows
        self.all_texts = numbered(texts)

    def reference_stream(self, images: str, texts: str, seed: int) -> Recorded:
        return self

    def images(self, step: int, count: int) -> Tensor:
        return chosen(self._pool, self._rows[step])


def chosen(pool: Tensor, rows: Tensor) -> Tensor:
    """The images of a batch, which -1 pads."""
    return pool[rows[rows >= 0]].float()


def numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def opened(name: str, folder: Path = FOLDER) -> tuple[Golden, CLIP]:
    """A file and its model as it was before the first task."""
    golden = read(name, folder)
    return golden, build_clip(golden.metadata["cfg"], golden.below("before."))


def task_of(golden: Golden, task: int) -> Task:
    """A task whose prompts are numbers of its recorded tokens."""
    names = numbered(len(golden.tensors[f"task{task}.tokens"]))
    return Task(f"task{task}", ClassTexts(names, tuple((n,) for n in names)), index=task)


def numbered_task(golden: Golden, task: int) -> Task:
    """The same with classes that are numbered on from those of earlier tasks."""
    first = sum(len(golden.tensors[f"task{t}.tokens"]) for t in range(task))
    plain = task_of(golden, task)
    ids = tuple(range(first, first + len(plain.classes)))
    return replace(plain, classes=replace(plain.classes, ids=ids))


def give_tokens(model: CLIP, tokens: Tensor) -> None:
    """Let the texts "0", "1", ... have these tokens."""
    model.tokenizer = NumberTokenizer(tokens, model.network.vocab_size)


def train(method: Method, golden: Golden, task: int, data: Any) -> dict[str, Tensor]:
    """Train on one golden task; each term of the loss at every step.

    The released loop takes one step more than its schedule counts, at rate zero: of that one only
    the loss is looked at.
    """
    hp = golden.metadata["hp"]
    own = golden.below(f"task{task}.")
    method.train()
    method.begin_task(task_of(golden, task), data)
    trained = [p for p in method.parameters() if p.requires_grad]
    betas = tuple(hp["betas"])
    optimizer = torch.optim.AdamW(
        trained, lr=0.0, weight_decay=hp["weight_decay"], betas=betas, eps=hp["eps"]
    )
    terms: list[dict[str, Tensor]] = []
    for step, rows in enumerate(own["batches"]):
        labels = own["pool_labels"][rows[rows >= 0]]
        found = method.loss(Batch(chosen(own["pool"], rows), labels, own["tokens"].long()))
        terms.append({key: value.detach() for key, value in found.items()})
        if step == hp["iterations"]:
            break
        optimizer.param_groups[0]["lr"] = own["lr"][step].item()
        optimizer.zero_grad()
        torch.stack([*found.values()]).sum().backward()
        method.after_backward()
        optimizer.step()
        method.after_step()
    method.eval()
    method.end_task(task_of(golden, task), data)
    return {key: torch.stack([step[key] for step in terms]) for key in terms[0]}


def assert_as_golden(model: CLIP, golden: Golden, task: int, terms: dict[str, Tensor]) -> None:
    """Check losses, and the answers and weights of the model kept after a task."""
    own = golden.below(f"task{task}.")
    total = torch.stack([*terms.values()]).sum(0)
    torch.testing.assert_close(terms["classification"], own["loss_ce"], atol=5e-5, rtol=0)
    torch.testing.assert_close(total, own["loss_total"], atol=5e-4, rtol=0)
    if "loss_image_distill" in own:
        distilled = own["loss_image_distill"] + own["loss_text_distill"]
        torch.testing.assert_close(terms["distillation"], distilled, atol=1.5e-4, rtol=0)
    probes = sorted(key for key in own if key.startswith("probe_logits."))
    assert probes
    for key in probes:
        tokens = golden.tensors[f"{key.removeprefix('probe_logits.')}.tokens"]
        with torch.no_grad():
            texts = model.encode_text(tokens.long())
            logits = model.logits(golden.tensors["probe_images"].float(), texts)
        torch.testing.assert_close(logits, own[key], atol=5e-4, rtol=0)
    state, after = model.export_state_dict(), golden.below(f"task{task}.after.")
    for name, weight in after.items():
        torch.testing.assert_close(state[name], weight, atol=1e-5, rtol=0)
