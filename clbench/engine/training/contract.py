"""Cheap checks that a method keeps its side of the contract."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clbench.clip.shortcuts.constancy import bit_digests
from clbench.core.errors import ClbenchError
from clbench.core.method import Method, method_name


class FrozenWeights:
    """Knows whether weights of the model that were frozen when training began are unchanged.

    Two passes over the weights per task, one hash of the bits each: nothing beside the training.

    Args:
        method: the method, ready to train.
    """

    def __init__(self, method: Method) -> None:
        self._method = method
        frozen = [(n, p) for n, p in method.model.named_parameters() if not p.requires_grad]
        self._names = [name for name, _ in frozen]
        self._digests = bit_digests([parameter for _, parameter in frozen])

    def check(self, task: str) -> None:
        """Compare with the weights as they are now.

        Raises:
            ClbenchError: a frozen weight has changed.
        """
        now = dict(self._method.model.named_parameters())
        if missing := [name for name in self._names if name not in now]:
            raise _broken(self._method, f"removed {missing[0]} while training on {task}")
        digests = bit_digests([now[name] for name in self._names])
        if digests is None or self._digests is None:  # tensors of a kind that cannot be read
            return
        both = zip(self._names, self._digests, digests, strict=True)
        if changed := [name for name, before, after in both if before != after]:
            raise _broken(
                self._method,
                f"changed {len(changed)} weights that it had frozen while training on {task} "
                f"(first: {changed[0]}): let them require grad, or leave them alone",
            )


def check_begun(method: Method, task: str) -> None:
    """Check what `begin_task` left behind.

    Raises:
        ClbenchError: the logit scale would be trained, or gradients are switched off globally.
    """
    if method.model.logit_scale.requires_grad:
        raise _broken(method, f"lets logit_scale require grad for {task}: it never trains")
    if not torch.is_grad_enabled():
        raise _broken(method, f"left gradients switched off in begin_task of {task}")


def check_ended(method: nn.Module, task: str) -> None:
    """Check what `end_task` left behind.

    Raises:
        ClbenchError: parameters carry gradients, or gradients are switched off globally.
    """
    assert isinstance(method, Method)
    left = [name for name, p in method.named_parameters() if p.grad is not None]
    if left:
        raise _broken(
            method,
            f"left gradients on {len(left)} parameters in end_task of {task} (first: {left[0]}): "
            "call zero_grad() after a backward pass of your own",
        )
    if not torch.is_grad_enabled():
        raise _broken(method, f"left gradients switched off in end_task of {task}")


def finite_scores(logits: Tensor) -> Tensor:
    """Whether every image has a best class, ``()`` bool on the device: minus infinity may mask."""
    return torch.isfinite(logits.amax(dim=-1)).all()


def _broken(method: Method, what: str) -> ClbenchError:
    return ClbenchError(f"method {method_name(method)!r} {what}")
