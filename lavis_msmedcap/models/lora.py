"""LoRA on the language model, by peft (an optional extra); not part of the paper.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import transformers
from torch import nn

from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.models.gradient_checkpointing import decoder_layers

MARK = ".lora_"  # in the names of all parameters that peft adds
OFF = "set model.llm.lora=null"


class LoraError(MSMedCapError, RuntimeError):
    """LoRA settings that cannot be met."""


def add_lora(
    llm: Any, rank: int, alpha: float, target_modules: Sequence[str], dropout: float = 0.0
) -> None:
    """Adds trainable low-rank matrices beside linear layers of a frozen LLM; its weights stay.

    The matrices are float32 whatever the LLM is held in, and start as zero: the model first
    computes what it did. Only their dropout follows ``train()``; the LLM itself stays in evaluation
    mode.

    Args:
        llm: Frozen language model.
        rank: Rank of the matrices.
        alpha: Their product is scaled by ``alpha / rank``.
        target_modules: Last part of the names of the layers, for example ``[q_proj, v_proj]``.
        dropout: Of the layers' input, on the way to the matrices.

    Raises:
        LoraError: If peft is missing or does not fit the installed transformers, or a target names
            no layer.
    """
    peft = _import_peft()
    names = sorted({n.rpartition(".")[2] for n, _ in decoder_layers(llm).named_modules()} - {""})
    unknown = [target for target in target_modules if target not in names]
    if unknown:
        raise LoraError(
            f"model.llm.lora.target_modules has {', '.join(unknown)}, which the LLM's blocks do not"
            f" have; their parts are {', '.join(name for name in names if not name.isdigit())}"
        )
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(target_modules)
    )
    peft.inject_adapter_in_model(config, llm)
    for name, parameter in llm.named_parameters():
        parameter.requires_grad_(MARK in name)
        if MARK in name:
            parameter.data = parameter.data.float()
    for part in llm.modules():
        part.training = False
    llm.train = partial(_train_dropout_only, llm)


def package_problem() -> str | None:
    """Says why peft cannot be used, with the cure; None if it can."""
    try:
        _import_peft()
    except LoraError as error:
        return str(error)
    return None


def _import_peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise LoraError(
            f"LoRA needs a peft that fits transformers {transformers.__version__} ({error}); "
            f"pip install 'lavis-msmedcap[lora]' (0.9 to 0.13 fit 4.26), or {OFF}"
        ) from error
    package: ModuleType = peft
    return package


def _train_dropout_only(llm: nn.Module, mode: bool = True) -> nn.Module:
    """Replaces ``train`` of the LLM."""
    for name, part in llm.named_modules():
        if f"{MARK}dropout." in f".{name}.":
            part.training = mode
    return llm
