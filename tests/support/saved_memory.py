"""Measures memory: what waits for a backward pass, and what is alive at most."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def saved_bytes(model: nn.Module, samples: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Runs a forward pass and counts the bytes that wait for the backward pass.

    Parameters are left out, and a tensor that is saved twice counts once.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, Tensor] = {}  # the tensors are held, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(samples)
    return output, sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


class PeakBytes(TorchDispatchMode):
    """Follows the tensors that operations make, until they are gone; the meta device will do.

    Args:
        module: Its parameters and buffers do not count.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.live = self.peak = 0
        tensors = [*module.parameters(), *module.buffers()]
        self._known = {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage())
        return output

    def _take(self, storage: Any) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, storage._cdata, storage.nbytes())

    def _drop(self, key: int, count: int) -> None:
        self._known.discard(key)
        self.live -= count
