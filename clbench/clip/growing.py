"""State that grows from task to task, and comes back from a checkpoint in the size it had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from clbench.clip.layers.together import declare


def let_grow(module: nn.Module, *names: str) -> None:
    """Let parameters and buffers take the shape of what is loaded into them.

    A buffer that is None becomes one, and one that the state dict lacks becomes None. Parameters
    are replaced, so an optimizer must be built afterwards, as the engine does.

    >>> head = nn.Module()
    >>> head.register_buffer("classes", torch.zeros(0, 4))
    >>> let_grow(head, "classes")
    >>> keys = head.load_state_dict({"classes": torch.ones(3, 4)})
    >>> head.classes.shape
    torch.Size([3, 4])

    Args:
        module: holds them.
        names: of its own parameters and buffers.
    """

    def resize(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
        for name in names:
            saved = state.get(prefix + name)
            if name in module._buffers:
                module._buffers[name] = _resized(module, module._buffers[name], saved)
            elif isinstance(saved, Tensor):
                old = module._parameters[name]
                assert old is not None
                if old.shape != saved.shape:
                    module._parameters[name] = nn.Parameter(
                        old.detach().new_empty(saved.shape), old.requires_grad
                    )

    module.register_load_state_dict_pre_hook(resize)


@declare(pure=True, ignored=("_make",))
class GrowingList(nn.ModuleList):
    """Modules of one kind, such as experts, of which there are more after every task.

    Loading a checkpoint makes as many as were saved.

    Args:
        make: returns a new module, not yet trained.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self._make = make
        self.register_load_state_dict_pre_hook(_fit)  # type: ignore[no-untyped-call]

    def grow(self) -> nn.Module:
        """Add one more module, on the device of the others and in the list's mode; return it."""
        module = self._make().train(self.training)
        tensor = next(self.parameters(), None)
        self.append(module if tensor is None else module.to(tensor.device))
        return module


def _fit(module: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Make as many modules as the state dict holds."""
    assert isinstance(module, GrowingList)
    numbers = {
        key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)
    }
    count = sum(number.isdigit() for number in numbers)
    while len(module) < count:
        module.grow()
    while len(module) > count:
        del module[-1]


def _resized(module: nn.Module, old: Tensor | None, saved: Tensor | None) -> Tensor | None:
    if saved is None:
        return None
    if old is not None and old.shape == saved.shape:
        return old
    others = [t for t in (old, *module.parameters(), *module.buffers()) if t is not None]
    device = others[0].device if others else torch.device("cpu")
    dtype = saved.dtype if old is None else old.dtype
    return torch.empty(saved.shape, dtype=dtype, device=device)
