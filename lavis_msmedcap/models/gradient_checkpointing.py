"""Gradient checkpointing: layers forget their activations and compute them again going backward.

Neither LAVIS nor Hugging Face does it where it is needed here. LAVIS' Q-Former has a branch for it,
but that drops the keys and values of the queries (``use_cache``), without which ITG has no image to
read. Hugging Face skips it in evaluation mode, in which the frozen LLM stays, although the gradient
of the visual prefix passes through all of its layers. So the layers are wrapped one by one.

Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", through
``torch.utils.checkpoint`` in its non-reentrant form.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_layers(layers: Iterable[nn.Module]) -> None:
    """Makes each layer keep only its inputs for the backward pass.

    Losses and gradients stay the same to the bit: the state of the random generators is kept, so
    that dropout draws the same mask again. Without gradients (decoding) nothing changes.

    ``forward`` is replaced by a partial of a module-level function, so that the layers can be
    deep-copied and pickled.
    """
    for layer in layers:
        layer.forward = partial(_forward, layer)


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Takes the place of a layer's ``forward``."""
    forward = partial(type(layer).forward, layer)
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def decoder_layers(llm: nn.Module) -> nn.ModuleList:
    """Finds the blocks of a causal language model: the list with one entry per hidden layer.

    Raises:
        ValueError: If there is none.
    """
    config: Any = llm.config
    count = config.num_hidden_layers
    for part in llm.modules():
        if isinstance(part, nn.ModuleList) and len(part) == count:
            return part
    raise ValueError(
        f"{type(llm).__name__} has no list of {count} layers, so its gradients cannot be "
        "checkpointed; set model.llm.gradient_checkpointing=false"
    )
