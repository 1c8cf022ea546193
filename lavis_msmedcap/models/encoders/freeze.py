"""What "frozen" means here: no gradient, and evaluation mode that survives ``model.train()``."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001
    """Replaces ``train`` of a frozen module."""
    return module


def freeze(module: ModuleT) -> ModuleT:
    """Freezes a module in place.

    Its parameters get no gradient, and it stays in evaluation mode (no dropout, no drop path) even
    when a parent is switched to training. ``train`` is replaced by a partial of a
    module-level function, so that frozen modules can be deep-copied and pickled.

    Returns:
        The same module.
    """
    module.requires_grad_(False)
    module.eval()
    for part in module.modules():
        part.train = partial(_stay_in_eval, part)  # type: ignore[method-assign]
    return module


def is_frozen(module: nn.Module) -> bool:
    """Tells whether nothing in a module is trainable or in training mode."""
    trainable = any(parameter.requires_grad for parameter in module.parameters())
    return not trainable and not any(part.training for part in module.modules())
