"""``run.shard_llm``: the blocks of the frozen LLM divided among the processes of a run.

Each process holds its share of every block. A block is gathered when it is computed, forward and
backward, and given up at once, so that the LLM costs a process 1/n of its blocks plus one of them.
It is torch's FSDP2; the values are those of an undivided LLM. Embeddings and output
layer stay whole, and so does what trains, under DDP as ever.

All processes have to call the LLM equally often, because all take part in gathering. Training does
so. Searches for captions end at different lengths, so a process that is done goes on with calls
that nobody reads until the last one is done. Decoding gathers every block for every token: it is
slow where the processes are not on one machine.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lavis_msmedcap.common.distributed import get_world_size
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.gradient_checkpointing import decoder_layers
from lavis_msmedcap.models.msmedcap import MSMedCap

KEY = "run.shard_llm"

logger = logging.getLogger(__name__)


def check_sharding(model: nn.Module) -> None:
    """Checks that a model's LLM can be divided.

    Raises:
        ConfigError: Naming what is in the way.
    """
    problems = []
    if not isinstance(model, MSMedCap):
        problems.append(f"{KEY}: {type(model).__name__} has no language model; remove the key")
    elif any(p.requires_grad or not p.is_floating_point() for p in model.opt_model.parameters()):
        problems.append(
            f"{KEY} divides a frozen LLM that is not quantised; set model.llm.lora=null and "
            f"model.llm.quantization=null, or {KEY}=false"
        )
    if not _has_fsdp2():
        problems.append(f"{KEY} needs torch 2.6 or newer, here is {torch.__version__}")
    if problems:
        raise ConfigError(problems)


def _has_fsdp2() -> bool:
    return dist.is_available() and hasattr(import_module("torch.distributed.fsdp"), "fully_shard")


def shard_llm(model: MSMedCap, device: torch.device) -> None:
    """Divides the blocks of the LLM; with one process there is nothing to divide.

    Call it before the model is moved to its device, where the whole LLM may not fit, and before
    DDP, which leaves the blocks alone then.

    Args:
        model: For which `check_sharding` has nothing to say, whole on the CPU.
        device: That of this process.
    """
    shares = get_world_size()
    if shares == 1:
        logger.info("%s: one process holds all of the LLM", KEY)
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (shares,))
    model.hold_frozen_marks()  # which are read by one process alone
    blocks = decoder_layers(model.opt_model)
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    divided = {id(parameter) for parameter in blocks.parameters()}
    names = [name for name, p in model.named_parameters() if id(p) in divided]
    ddp: Any = DistributedDataParallel
    ddp._set_params_and_buffers_to_ignore_for_model(model, names)
    together = _Together(model.opt_model)
    for method in ("generate", "predict_answers"):
        setattr(model, method, together.wrap(getattr(model, method)))
    logger.info("%s: %d blocks of the LLM, 1/%d of each here", KEY, len(blocks), shares)


class _Together:
    """Makes all processes call the LLM equally often.

    Before each call a process tells the others that there is one. A process that is done asks
    whether another one still calls, and calls too then.

    Args:
        llm: Its blocks are divided.
    """

    def __init__(self, llm: Any) -> None:
        self._llm = llm
        self._within = False

    def wrap(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps what calls the LLM a number of times that differs among processes.

        An error on one process leaves the others waiting, until torchrun ends them.
        """

        @functools.wraps(method)
        def together(*args: Any, **kwargs: Any) -> Any:
            if self._within:  # a method that calls another one
                return method(*args, **kwargs)
            hook = self._llm.register_forward_pre_hook(self._announce)
            self._within = True
            try:
                result = method(*args, **kwargs)
            finally:
                self._within = False
                hook.remove()
            self._keep_company()
            return result

        return together

    def _announce(self, *_: Any) -> None:
        self._any_calls(True)

    def _any_calls(self, this_one: bool) -> bool:
        """Tells the others whether this process calls the LLM, and learns whether any does."""
        vote = torch.full((), float(this_one), device=self._device)
        dist.all_reduce(vote, op=dist.ReduceOp.MAX)
        return bool(vote)

    @property
    def _device(self) -> torch.device:
        weight: Tensor = self._llm.get_input_embeddings().weight
        return weight.device

    @torch.no_grad()
    def _keep_company(self) -> None:
        one = torch.ones(1, 1, dtype=torch.long, device=self._device)
        while self._any_calls(False):
            self._llm(input_ids=one, attention_mask=one, use_cache=False)
