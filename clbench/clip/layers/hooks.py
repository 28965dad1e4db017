"""Hooks that somebody has put onto a module."""

from __future__ import annotations

from torch import nn


def hooked(module: nn.Module) -> bool:
    """Whether somebody looks at what a module itself receives or returns."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
