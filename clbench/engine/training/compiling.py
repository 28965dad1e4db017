"""`torch.compile` where it works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch._dynamo

from clbench.clip.model import CLIP


@contextmanager
def compiled(model: CLIP, wanted: bool, note: Callable[[str], None]) -> Iterator[None]:
    """Compile the model's blocks while a run lasts, if that is asked for and possible.

    Blocks are compiled one by one, so that all of an encoder share one compilation; results are
    the same up to rounding.

    Args:
        model: its blocks are compiled in place.
        wanted: whether to do anything.
        note: told why it is not possible.
    """
    blocks = [*model.blocks("vision"), *model.blocks("text")]
    if not wanted or not _works(model.device, note):
        yield
        return
    for block in blocks:
        block.compile(dynamic=True)
    try:
        # A block that cannot be compiled after all is run as it is.
        with torch._dynamo.config.patch(suppress_errors=True):
            yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None


def _works(device: torch.device, note: Callable[[str], None]) -> bool:
    """Whether a small function can be compiled here, with its gradient."""

    def double(x: torch.Tensor) -> torch.Tensor:
        return (2 * x).sin()

    x = torch.ones(3, device=device, requires_grad=True)
    try:
        torch.compile(double)(x).sum().backward()
    except Exception as error:  # each backend raises its own
        reason = str(error).strip().splitlines()[:1]
        cause = reason[0] if reason else type(error).__name__
        note(f"torch.compile does not work here ({cause}): running without it")
        return False
    return True
