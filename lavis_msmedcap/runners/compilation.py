"""``run.compile``: torch.compile for the blocks of Q-Formers and frozen encoders.

The blocks are compiled one by one and in place (``Module.compile``). Blocks of one kind share their
code, so that a ViT of 40 blocks costs the compilation of one, and no name changes: checkpoints and
states are those of a run without compilation, and either goes on with those of the other.

What is not compiled: the language model, whose cache grows with every token of a search, and
16-bit encoders on a CPU without 16-bit units, which multiply in float32 (see `models.precision`).

A block is compiled when it is first called, and again for another kind of call (text or none, with
gradients or without, another batch size), so the first steps take minutes. Values differ from those
without compilation by rounding, and dropout draws other numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.branch import QFormerBranch
from lavis_msmedcap.models.precision import has_units

INDUCTOR = "inductor"  # torch's own compiler: Triton on a GPU, C++ on a CPU
# kinds of calls of one block: four passes of stage 1, with and without gradients, with and without
# cross-attention, for one length and for any, of two branches; torch gives up after 8
KINDS_OF_CALLS = 64

logger = logging.getLogger(__name__)


def check_compiler(device: torch.device, backend: str = INDUCTOR) -> None:
    """Compiles one line, forward and backward, to see that this machine can.

    Args:
        device: Where the model will run.
        backend: Of ``torch.compile``.

    Raises:
        ConfigError: With torch's reason.
    """
    if not hasattr(nn.Module, "compile"):
        raise ConfigError([_problem(f"torch {torch.__version__} is too old; 2.2 has it")])
    try:
        value = torch.ones(8, device=device, requires_grad=True)
        result: Any = torch.compile(_one_line, backend=backend)(value)
        result.backward()
    except (RuntimeError, OSError, ImportError, AttributeError) as error:
        cure = "a C++ compiler (g++)" if device.type == "cpu" else "Triton and a C compiler (gcc)"
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError([_problem(f"{backend} needs {cure} here ({reason})")]) from error


def _problem(what: str) -> str:
    return f"run.compile: this machine cannot compile: {what}; or set run.compile=false"


def _one_line(value: torch.Tensor) -> torch.Tensor:
    return (value.sin() * value).sum()


def compile_blocks(model: nn.Module, device: torch.device, backend: str = INDUCTOR) -> None:
    """Compiles the blocks of a model's branches in place.

    Args:
        model: Model on its device, without a DDP wrapper.
        device: That device.
        backend: Of ``torch.compile``.

    Raises:
        ConfigError: If the model has no branches.
    """
    branches = [part for part in model.modules() if isinstance(part, QFormerBranch)]
    if not branches:
        kind = type(model).__name__
        raise ConfigError([f"run.compile: {kind} has no Q-Former branch; set run.compile=false"])
    counts = {"Q-Formers": 0, "encoders": 0}
    for branch in branches:
        for block in branch.qformer.bert.encoder.layer:
            block.compile(backend=backend)
            counts["Q-Formers"] += 1
        for block in _encoder_blocks(branch.encoder, device):
            block.compile(backend=backend)
            counts["encoders"] += 1
    _allow(KINDS_OF_CALLS)
    told = ", ".join(f"{count} blocks of {part}" for part, count in counts.items())
    logger.info("compiled when first called, which takes minutes: %s", told)


def _encoder_blocks(encoder: Any, device: torch.device) -> Iterator[nn.Module]:
    dtype = next(encoder.vit.parameters()).dtype
    if device.type == "cpu" and not has_units(dtype):
        return
    yield from max(_stacks(encoder.vit), key=len)


def _stacks(vit: nn.Module) -> Iterator[nn.ModuleList | nn.Sequential]:
    """Finds the lists of modules of one class: a ViT's blocks, and perhaps shorter ones."""
    for part in vit.modules():
        if isinstance(part, (nn.ModuleList, nn.Sequential)) and len({type(m) for m in part}) == 1:
            yield part


def _allow(kinds: int) -> None:
    """Lets torch compile a function for so many kinds of calls before it gives up."""
    config: Any = torch._dynamo.config
    name = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, name, max(getattr(config, name), kinds))
