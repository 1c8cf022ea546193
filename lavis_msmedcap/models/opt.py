"""OPT, the language model of the paper: its weights and its tokenizer.

LAVIS' own OPT classes are used, so that checkpoints, attribute names and numbers stay LAVIS'. No
other file knows OPT by name; any causal language model is loaded by `llm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lavis.models.blip2_models.modeling_opt import OPTConfig, OPTForCausalLM
from transformers import GPT2Tokenizer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.encoders.freeze import freeze
from lavis_msmedcap.models.llm_files import read_config, read_llm_weights
from lavis_msmedcap.models.llm_text import check_tokenizer, check_vocabulary
from lavis_msmedcap.models.weights import (
    PRECISIONS,
    ExpectedKeys,
    load_strict,
    refuse_overflow,
)

TOKENIZER_NAMES = ("vocab.json", "merges.txt", "tokenizer_config.json")
PUBLISHED_SIZES = {  # layers, heads, width
    "125m": (12, 12, 768),
    "350m": (24, 16, 1024),
    "1.3b": (24, 32, 2048),
    "2.7b": (32, 32, 2560),
    "6.7b": (32, 32, 4096),
    "13b": (40, 40, 5120),
    "30b": (48, 56, 7168),
}
EMBEDDING_KEY = "model.decoder.embed_tokens.weight"
HEAD_KEY = "lm_head.weight"


def build_opt(config: Mapping[str, Any]) -> OPTForCausalLM:
    """Builds OPT with random weights, trainable, in float32.

    Args:
        config: Keys of a ``config.json``: ``vocab_size``, ``hidden_size``, ``num_hidden_layers``,
            ``num_attention_heads``, ``ffn_dim``, ...
    """
    model = OPTForCausalLM(OPTConfig.from_dict(dict(config)))
    _tie_head(model)
    return model


def opt_config(content: Mapping[str, Any], weights: Path) -> OPTConfig:
    """Turns the content of a ``config.json`` into OPT's configuration.

    Raises:
        WeightsError: If it is of another model.
    """
    model_type = content.get("model_type")
    if model_type != "opt":
        raise WeightsError(f"OPT: {weights} says model_type {model_type!r}; expected 'opt'")
    return OPTConfig.from_dict(dict(content))


def published_opt(name: str) -> dict[str, Any] | None:
    """Returns what ``config.json`` of a published OPT says of its sizes, None for another name.

    Args:
        name: Of a folder, for example ``opt-2.7b``.

    Source: Zhang et al., "OPT: Open Pre-trained Transformer Language Models", Table 1.
    """
    size = name.lower().rpartition("opt-")[2] if "opt-" in name.lower() else ""
    if size not in PUBLISHED_SIZES:
        return None
    layers, heads, width = PUBLISHED_SIZES[size]
    return {
        "model_type": "opt",
        "vocab_size": 50272,
        "hidden_size": width,
        "word_embed_proj_dim": 512 if size == "350m" else width,
        "do_layer_norm_before": size != "350m",
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "ffn_dim": 4 * width,
        "max_position_embeddings": 2048,
    }


def load_opt(
    weights: Path, tokenizer: Path, precision: str = "fp32"
) -> tuple[OPTForCausalLM, GPT2Tokenizer]:
    """Loads OPT and its tokenizer from local files, frozen and without dropout.

    Args:
        weights: Folder in the Hugging Face layout (``config.json`` beside ``model.safetensors`` or
            ``pytorch_model.bin``, either of them whole or split with an index), or one such weights
            file with ``config.json`` in its folder.
        tokenizer: Folder with ``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``.
        precision: ``fp32``, ``fp16`` or ``bf16``: the type that the weights are held in.

    Returns:
        The model on the CPU, and the tokenizer.

    Raises:
        WeightsError: If a file is missing or damaged, a weight is missing, unexpected, of the wrong
            shape or not finite, or the tokenizer is not the model's.
        ValueError: If ``precision`` is not one of the three.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} of the LLM: expected one of {list(PRECISIONS)}")
    config = opt_config(read_config(weights), weights)
    with torch.device("meta"):  # every weight comes from the file: initialising them is wasted
        model = OPTForCausalLM(config)
    model = model.to(PRECISIONS[precision]).to_empty(device="cpu")
    _tie_head(model)
    _load_weights(model, weights)
    refuse_overflow(model, f"LLM: {weights}", precision, "model.llm.precision")
    loaded_tokenizer = load_opt_tokenizer(tokenizer)
    _check_pairing(config, loaded_tokenizer, tokenizer)
    return freeze(model), loaded_tokenizer


def missing_opt_tokenizer_files(folder: Path) -> list[str]:
    """Lists the files without which a folder holds no tokenizer of OPT."""
    return [name for name in TOKENIZER_NAMES if not (folder / name).is_file()]


def load_opt_tokenizer(folder: Path) -> GPT2Tokenizer:
    """Loads a byte-level BPE tokenizer; nothing is ever looked up outside the folder.

    It is the class that ``AutoTokenizer`` with ``use_fast=False`` gives LAVIS for OPT.

    Raises:
        WeightsError: If a file is missing, or the tokenizer cannot serve captioning: no padding
            token, no single token for the line break, or a prompt whose tokens change when a
            caption follows it.
    """
    absent = missing_opt_tokenizer_files(folder)
    if absent:
        raise WeightsError(
            f"OPT tokenizer: {folder} lacks {', '.join(absent)}; expected a folder with "
            f"{', '.join(TOKENIZER_NAMES)} (copy them from the OPT release)"
        )
    tokenizer = GPT2Tokenizer.from_pretrained(str(folder), local_files_only=True)
    if tokenizer.pad_token_id is None or tokenizer.bos_token_id is None:
        raise WeightsError(
            f"OPT tokenizer: {folder}/tokenizer_config.json names no pad_token or no bos_token; "
            "OPT's are <pad> and </s>"
        )
    check_tokenizer(tokenizer, folder)
    return tokenizer


def _load_weights(model: OPTForCausalLM, weights: Path) -> None:
    """Fills the model, every key accounted for."""
    tensors = {
        # the releases of 350m, 6.7b, 13b and 30b were saved without the outer "model."
        f"model.{name}" if name.startswith("decoder.") else name: value
        for name, value in read_llm_weights(weights).items()
    }
    head = tensors.get(HEAD_KEY)
    expected = ExpectedKeys(unused={"decoder.version": "a leftover of the training library"})
    targets = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        embedding = tensors.get(EMBEDDING_KEY)
        if head is not None and embedding is not None and not torch.equal(head, embedding):
            raise WeightsError(
                f"OPT: in {weights} {HEAD_KEY} differs from {EMBEDDING_KEY}, but config.json ties "
                "them; set tie_word_embeddings to false there if that is meant"
            )
        targets.pop(HEAD_KEY)
        tensors.pop(HEAD_KEY, None)
    load_strict(targets, tensors, str(weights), expected)


def _tie_head(model: OPTForCausalLM) -> None:
    """Makes the output layer the embedding table; not every version of transformers does."""
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.decoder.embed_tokens.weight


def _check_pairing(config: OPTConfig, tokenizer: GPT2Tokenizer, folder: Path) -> None:
    """Refuses a tokenizer whose special tokens or size are not those of the model."""
    for name in ("bos_token_id", "pad_token_id"):
        ours, theirs = getattr(tokenizer, name), getattr(config, name)
        if ours != theirs:
            raise WeightsError(
                f"OPT tokenizer in {folder}: {name} is {ours}, the model's config.json says "
                f"{theirs}; use the tokenizer that came with the model"
            )
    check_vocabulary(tokenizer, config.vocab_size, folder)
