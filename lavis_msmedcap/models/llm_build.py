"""The LLM as the ``model.llm`` section wants it: loaded, quantised, with LoRA."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.gradient_checkpointing import checkpoint_layers, decoder_layers
from lavis_msmedcap.models.llm import llm_config, load_llm, missing_tokenizer_files
from lavis_msmedcap.models.llm_files import missing_llm_files
from lavis_msmedcap.models.llm_text import Tokenizer
from lavis_msmedcap.models.lora import add_lora
from lavis_msmedcap.models.opt import missing_opt_tokenizer_files
from lavis_msmedcap.models.quantization import quantize_llm
from lavis_msmedcap.models.weight_files import Need, Part, locate

LLM_WEIGHTS = Part(lacks=missing_llm_files)
LLM_TOKENIZER = Part(lacks=missing_tokenizer_files)
OPT_TOKENIZER = Part(lacks=missing_opt_tokenizer_files)

logger = logging.getLogger(__name__)


def build_llm(llm: Mapping[str, Any]) -> tuple[Any, Tokenizer]:
    """Loads the frozen LLM and its tokenizer.

    Args:
        llm: The ``model.llm`` section.

    Returns:
        The model on the CPU, and the tokenizer.

    Raises:
        WeightsError: As in `load_llm`.
        QuantizationError: If the LLM cannot be quantised here.
        LoraError: If it has no such linear layers.
    """
    model, tokenizer = load_llm(
        locate(llm["weights"], LLM_WEIGHTS),
        locate(llm["tokenizer"], _tokenizer_part(llm["weights"])),
        llm.get("precision", "fp32"),
    )
    if llm.get("quantization"):
        quantize_llm(model, llm["quantization"])
    if llm.get("lora"):
        add_lora(model, **llm["lora"])
        logger.warning("model.llm.lora trains the LLM: this leaves the paper's rule")
    if llm.get("gradient_checkpointing"):
        checkpoint_layers(decoder_layers(model))
    return model, tokenizer


def llm_needs(llm: Mapping[str, Any]) -> list[Need]:
    """Lists the published weights that a ``model.llm`` section names."""
    what = "the Hugging Face folder of OPT (or another causal LM)"
    parts = (("weights", LLM_WEIGHTS), ("tokenizer", _tokenizer_part(llm["weights"])))
    return [Need(f"model.llm.{key}", llm[key], what, part) for key, part in parts]


def _tokenizer_part(weights: str) -> Part:
    """Returns what is wanted of the tokenizer beside an LLM: OPT's has files of its own."""
    try:
        config, _ = llm_config(locate(weights, LLM_WEIGHTS))
    except WeightsError:  # told when the weights are asked for
        return LLM_TOKENIZER
    return OPT_TOKENIZER if config.model_type == "opt" else LLM_TOKENIZER
