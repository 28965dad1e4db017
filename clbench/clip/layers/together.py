"""What layers declare about themselves: the only ground on which shortcuts may stand.

A shortcut leaves work out because of something it knows about a layer. It cannot read that off a
layer's name or package, so the class says it: by the decorator `declare`, or for classes of other
packages in the table at the end of this file. A declaration holds for exactly that class and not
for its subclasses, which may override anything. A layer that declares nothing gets no shortcut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import open_clip
from open_clip import transformer as open_clip_transformer
from torch import Tensor, nn

from clbench.clip.layers.hooks import hooked

Module = TypeVar("Module", bound=type[nn.Module])
Together = Callable[[Sequence[Any], Tensor], Sequence[Tensor] | None]


@dataclass(frozen=True)
class Declaration:
    """What a class of modules says about itself.

    Attributes:
        pure: whether a module, as it is now, is a function of its input, its tensors (parameters,
            buffers, tensors in attributes), its child modules and its plain attributes: numbers,
            strings, and tuples, lists, sets and mappings of them. All of these are part of the key
            under which results are remembered, so a module need not list its switches, scales or
            chosen experts; it must only not look at anything else.
        together: computes several layers of the class at one input, or returns None where it
            cannot; None if there is no faster way than one after the other.
        by_identity: attributes that hold objects of other kinds, which stay as they are: another
            object gives another key.
        ignored: attributes that have no influence on results.
        idle: whether the module's own tensors hold nothing worth keeping at the moment, such as the
            factors of an update that was merged. They do not count as stored.
    """

    pure: Callable[[Any], bool]
    together: Together | None
    by_identity: frozenset[str]
    ignored: frozenset[str]
    idle: Callable[[Any], bool]


_DECLARED: dict[type[nn.Module], Declaration] = {}


def declare(
    *,
    pure: bool | Callable[[Any], bool] = False,
    together: Together | None = None,
    by_identity: Collection[str] = (),
    ignored: Collection[str] = (),
    idle: Callable[[Any], bool] = lambda _: False,
) -> Callable[[Module], Module]:
    """Declare what shortcuts may assume about a class of modules; arguments as in `Declaration`.

    >>> @declare(pure=True)
    ... class Doubled(nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> class Subclass(Doubled):
    ...     pass
    >>> is_pure(Doubled()), is_pure(Subclass())
    (True, False)
    """
    decide = pure if callable(pure) else lambda _: bool(pure)

    def declared(cls: Module) -> Module:
        _DECLARED[cls] = Declaration(
            decide, together, frozenset(by_identity), frozenset(ignored), idle
        )
        return cls

    return declared


def declaration_of(module: nn.Module) -> Declaration | None:
    """What a module's class declares; None if nothing."""
    return _DECLARED.get(type(module))


def is_pure(module: nn.Module) -> bool:
    """Whether a module itself, its children aside, is declared `pure` and nothing is in its way."""
    declaration = _DECLARED.get(type(module))
    return declaration is not None and declaration.pure(module) and not _interfered(module)


def apply_layers(layers: Sequence[nn.Module], x: Tensor) -> Sequence[Tensor]:
    """``layer(x)`` of several layers, in one go where their class declares how."""
    first = type(layers[0])
    declaration = _DECLARED.get(first)
    if (
        declaration is not None
        and declaration.together is not None
        and all(type(layer) is first and not _interfered(layer) for layer in layers)
        and (outputs := declaration.together(layers, x)) is not None
    ):
        return outputs
    return [layer(x) for layer in layers]


def _interfered(module: nn.Module) -> bool:
    """Whether somebody looks at what a module receives or returns, or has replaced a method."""
    cls: type = type(module)
    return hooked(module) or not _method_names(cls).isdisjoint(vars(module))


@cache
def _method_names(cls: type) -> frozenset[str]:
    return frozenset(name for name in dir(cls) if callable(getattr(cls, name, None)))


def _drops_nothing(dropout: Any) -> bool:
    return not dropout.training or dropout.p == 0


# Classes of PyTorch and open_clip, by what their forward functions compute.
for _cls in (
    nn.GELU,
    nn.Identity,
    nn.LayerNorm,
    nn.Linear,
    nn.ReLU,
    nn.Sequential,
    nn.SiLU,
    open_clip_transformer.LayerNorm,
    open_clip_transformer.LayerNormFp32,
    open_clip_transformer.LayerScale,
    open_clip_transformer.QuickGELU,
):
    declare(pure=True)(_cls)
for _cls in (
    nn.Conv2d,
    nn.ModuleDict,
    nn.ModuleList,
    nn.MultiheadAttention,
    nn.ParameterDict,
    nn.ParameterList,
    open_clip.CLIP,
    open_clip.CustomTextCLIP,
    open_clip_transformer.ResidualAttentionBlock,
    open_clip_transformer.TextTransformer,
    open_clip_transformer.Transformer,
    open_clip_transformer.VisionTransformer,
):
    declare(pure=True)(_cls)
declare(pure=_drops_nothing)(nn.Dropout)
declare(pure=lambda dropout: not dropout.training or dropout.prob == 0)(
    open_clip_transformer.PatchDropout
)
declare(pure=lambda embedding: embedding.max_norm is None)(nn.Embedding)  # else it renormalises
