"""Pretrain the tiny CLIP of the `mini` benchmark from scratch, on two CPU cores in half an hour.

    python -m clbench.datamodules.mini.pretrain --out FILE
    python -m clbench.datamodules.mini.pretrain --share 0.1

A first stage trains on pictures in clean style alone; a short second stage mixes in a share of
pictures in wild style, the style of the downstream tasks. That share sets how well zero-shot
classification starts out. `--share` makes a complete schedule of a share of the length; its weights
lie in the user's cache folder unless `--out` says otherwise.
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from clbench.core.files import cached_file
from clbench.datamodules.mini.canvas import SIDE, Style
from clbench.datamodules.mini.captions import vocabulary
from clbench.datamodules.mini.domains import DOMAINS, TASKS
from clbench.datamodules.mini.recipe import Recipe, draw_batch, learning_rate
from clbench.datamodules.mini.render import pretraining_pairs, render_split

CONTEXT = 20
MEAN = STD = (0.5, 0.5, 0.5)
RENDER_CHUNK = 2000
CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class Pairs:
    """Pictures with captions.

    Attributes:
        images: Pictures, uint8, shape (N, 3, 32, 32).
        captions: Number of each picture's caption in `tokens`, shape (N,).
        tokens: Token numbers of the distinct captions, shape (C, CONTEXT).
    """

    images: Tensor
    captions: Tensor
    tokens: Tensor


class Tokenizer:
    """CLIP's tokenizer with its table cut down to the tokens in use.

    Sorting the table keeps the order of tokens, so end-of-text stays the largest number, which is
    where CLIP reads off the text feature, and padding stays 0.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Keep the tokens that occur in the texts, and padding."""
        self._full = open_clip.SimpleTokenizer(context_length=CONTEXT)
        self.token_ids: NDArray[np.int64] = np.unique(self._full(list(texts)).numpy())

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode N texts as token numbers, shape (N, CONTEXT).

        Raises:
            ValueError: If a text holds a token outside the table.
        """
        ids = self._full(list(texts)).numpy()
        if unknown := set(ids.ravel().tolist()) - set(self.token_ids.tolist()):
            raise ValueError(f"tokens outside the table: {self._full.decode(sorted(unknown))}")
        return torch.from_numpy(np.searchsorted(self.token_ids, ids))


def model_config(vocabulary_size: int) -> dict[str, Any]:
    """The arguments of `open_clip.CLIP` for the tiny model."""
    return {
        "embed_dim": 128,
        "vision_cfg": {
            "image_size": SIDE,
            "patch_size": 8,
            "width": 128,
            "layers": 4,
            "head_width": 32,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": vocabulary_size,
            "width": 128,
            "heads": 4,
            "layers": 3,
        },
        "quick_gelu": False,
    }


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 images (N, 3, H, W) into what the model takes."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def clip_loss(image: Tensor, text: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross entropy, in which identical captions count as matches.

    Args:
        image: Image features of unit length, shape (B, D).
        text: Text features of unit length, shape (B, D).
        captions: Number of each pair's caption, shape (B,).
        scale: Inverse temperature.
    """
    logits = scale * image @ text.T
    matches = (captions[:, None] == captions[None, :]).float()
    targets = matches / matches.sum(dim=1, keepdim=True)
    by_image = functional.cross_entropy(logits, targets)
    by_text = functional.cross_entropy(logits.T, targets)
    return (by_image + by_text) / 2


def render_pairs(recipe: Recipe, tokenizer: Tokenizer) -> Pairs:
    """Render all pictures, clean ones first, with one process per core."""
    total = recipe.clean_images + recipe.wild_images
    print(f"rendering {total} pictures", flush=True)
    jobs = [
        (style, start, min(start + RENDER_CHUNK, count))
        for style, count in (("clean", recipe.clean_images), ("wild", recipe.wild_images))
        for start in range(0, count, RENDER_CHUNK)
    ]
    with ProcessPoolExecutor() as workers:
        parts = list(workers.map(_render_job, jobs))
    texts = [text for _, captions in parts for text in captions]
    distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    print(f"{len(distinct)} distinct captions", flush=True)
    return Pairs(
        images=torch.from_numpy(np.concatenate([images for images, _ in parts])),
        captions=torch.tensor([distinct[text] for text in texts]),
        tokens=tokenizer(list(distinct)),
    )


def _render_job(job: tuple[Style, int, int]) -> tuple[NDArray[np.uint8], list[str]]:
    return pretraining_pairs(*job)


def pretrain(recipe: Recipe, pairs: Pairs, model: open_clip.CLIP, checkpoints: Path) -> None:
    """Train the model in place, going on from the newest checkpoint in a folder."""
    optimizer = _make_optimizer(model, recipe)
    first = _load_newest(checkpoints, model, optimizer)
    began = time.monotonic()
    for step in range(first, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        loss = _train_step(model, optimizer, pairs, torch.from_numpy(draw_batch(step, recipe)))
        done = step + 1
        if done % 50 == 0:
            seconds = (time.monotonic() - began) / (done - first)
            print(
                f"step {done} of {recipe.steps}, loss {loss:.3f}, {seconds:.3f} s/step", flush=True
            )
        if done % CHECKPOINT_EVERY == 0 or done == recipe.steps:
            _save_checkpoint(checkpoints, model, optimizer, done)


def _make_optimizer(model: open_clip.CLIP, recipe: Recipe) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _train_step(
    model: open_clip.CLIP, optimizer: torch.optim.Optimizer, pairs: Pairs, batch: Tensor
) -> float:
    captions = pairs.captions[batch]
    image = model.encode_image(normalise(pairs.images[batch]), normalize=True)
    text = model.encode_text(pairs.tokens[captions], normalize=True)
    loss = clip_loss(image, text, captions, model.logit_scale.exp())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(100))
    return loss.item()


def _save_checkpoint(
    folder: Path, model: open_clip.CLIP, optimizer: torch.optim.Optimizer, step: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    # Renaming is atomic: a crash while saving leaves no broken checkpoint behind.
    torch.save(state, folder / "partial")
    (folder / "partial").rename(folder / f"step-{step:06d}.pt")


def _load_newest(folder: Path, model: open_clip.CLIP, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest checkpoint, if any, and return the number of steps done."""
    files = sorted(folder.glob("step-*.pt"))
    if not files:
        return 0
    print(f"going on from {files[-1]}", flush=True)
    state = torch.load(files[-1], weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


def save_weights(file: Path, model: open_clip.CLIP, tokenizer: Tokenizer, recipe: Recipe) -> None:
    """Save half-precision weights, with all that is needed to use them as metadata."""
    metadata = {
        "model_cfg": json.dumps(model_config(len(tokenizer.token_ids))),
        "token_ids": json.dumps(tokenizer.token_ids.tolist()),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "recipe": json.dumps(asdict(recipe)),
        "description": "Tiny CLIP pretrained on rendered pictures, for the `mini` benchmark",
        "licence": "Apache-2.0",
    }
    weights = {name: weight.half().contiguous() for name, weight in model.state_dict().items()}
    partial = file.with_suffix(".partial")
    save_file(weights, partial, metadata)
    partial.replace(file)


@torch.no_grad()
def zero_shot_accuracy(
    model: open_clip.CLIP, tokenizer: Tokenizer, rendering: str, count: int = 400
) -> Iterator[tuple[str, float]]:
    """Yield the name of each downstream task and its accuracy with averaged prompts."""
    for name in TASKS:
        domain = DOMAINS[name]
        prompts = [template.format(c) for c in domain.classes for template in domain.templates]
        text = model.encode_text(tokenizer(prompts), normalize=True)
        text = text.view(len(domain.classes), len(domain.templates), -1).mean(dim=1)
        images, labels = render_split(name, "test", count, rendering)
        features = model.encode_image(normalise(torch.from_numpy(images)), normalize=True)
        predicted = (features @ functional.normalize(text, dim=1).T).argmax(dim=1)
        yield name, (predicted == torch.from_numpy(labels)).float().mean().item()


def make_weights(recipe: Recipe, out: Path, checkpoints: Path | None = None) -> None:
    """Render, pretrain and save; report zero-shot accuracy.

    Args:
        recipe: the schedule.
        out: file to write.
        checkpoints: where training goes on from if it was stopped; a folder beside the file, which
            is deleted in the end, if None.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = Tokenizer(vocabulary())
    model = open_clip.CLIP(**model_config(len(tokenizer.token_ids)))
    pairs = render_pairs(recipe, tokenizer)
    folder = checkpoints or out.with_name(out.name + ".checkpoints")
    pretrain(recipe, pairs, model.train(), folder)
    save_weights(out, model.eval(), tokenizer, recipe)
    if checkpoints is None:
        shutil.rmtree(folder)
    for name, accuracy in zero_shot_accuracy(model, tokenizer, "official"):
        print(f"{name:10s} {100 * accuracy:5.1f}")


def main() -> None:
    """Make the weights that the command line asks for."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="safetensors file to write")
    parser.add_argument("--share", type=float, help="of the schedule, between 0 and 1")
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--mixed-steps", type=int, default=defaults.mixed_steps)
    parser.add_argument("--wild-share", type=float, default=defaults.wild_share)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, help="folder to keep them in")
    options = parser.parse_args()
    recipe = replace(
        defaults,
        steps=options.steps,
        mixed_steps=min(options.mixed_steps, options.steps),
        wild_share=options.wild_share,
    )
    if options.share is not None:
        if not 0 < options.share <= 1:
            parser.error(f"--share {options.share}: a share lies between 0 and 1")
        recipe = recipe.shortened(options.share)
    elif options.out is None:
        parser.error("--out FILE or --share SHARE is needed")
    out: Path | None = options.out or cached_file(recipe.weights)
    assert out is not None
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    make_weights(recipe, out, options.checkpoints)
    print(out)


if __name__ == "__main__":
    main()
