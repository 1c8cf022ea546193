"""The frozen language model: OPT as in the paper, or any causal LM that transformers can load.

``config.json`` of the model's folder says which it is. Everything comes from that folder: nothing
is looked up elsewhere, no code of a checkpoint is run, and every weight is accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoTokenizer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.encoders.freeze import freeze
from lavis_msmedcap.models.llm_cache import CachedLlm
from lavis_msmedcap.models.llm_files import (
    config_path,
    read_config,
    read_llm_weights,
)
from lavis_msmedcap.models.llm_text import Tokenizer, check_tokenizer, check_vocabulary
from lavis_msmedcap.models.opt import build_opt, load_opt, opt_config, published_opt
from lavis_msmedcap.models.weights import (
    PRECISIONS,
    ExpectedKeys,
    load_strict,
    refuse_overflow,
)

TOKENIZER_FILES = ("vocab.json", "tokenizer.json", "tokenizer.model", "vocab.txt")
CONSTANTS = {  # tensors that a file may hold, but a network computes
    r"\.attn\.(attention\.)?(masked_)?bias$": "the causal mask is a constant",
    r"attention\.(masked_)?bias$": "the causal mask is a constant",
    r"rotary_emb\.inv_freq$": "rotary frequencies are constants",
}


def load_llm(weights: Path, tokenizer: Path, precision: str = "fp32") -> tuple[Any, Tokenizer]:
    """Loads a causal language model and its tokenizer from local files, frozen, without dropout.

    Args:
        weights: Folder in the Hugging Face layout, or one weights file with ``config.json`` beside
            it.
        tokenizer: Folder of the tokenizer.
        precision: ``fp32``, ``fp16`` or ``bf16``: the type that the weights are held in.

    Returns:
        The model on the CPU, and the tokenizer.

    Raises:
        WeightsError: If a file is missing or damaged, a weight cannot be explained, the installed
            transformers does not know the model, the model does not fit captioning, or the
            tokenizer is not the model's.
        ValueError: If ``precision`` is not one of the three.
    """
    if read_config(weights)["model_type"] == "opt":
        return load_opt(weights, tokenizer, precision)
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} of the LLM: expected one of {list(PRECISIONS)}")
    config, _ = llm_config(weights)
    with _NoRandomNumbers():  # every weight comes from the file; buffers are computed as usual
        model = llm_from_config(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(PRECISIONS[precision])
    _load_weights(model, weights)
    refuse_overflow(model, f"LLM: {weights}", precision, "model.llm.precision")
    loaded_tokenizer = load_tokenizer(tokenizer)
    check_vocabulary(loaded_tokenizer, config.vocab_size, tokenizer)
    check_captioning(freeze(model), str(weights))
    return model, loaded_tokenizer


def llm_config(weights: Path) -> tuple[Any, str | None]:
    """Reads the configuration of a model; that of a published OPT is known without its file.

    Returns:
        The configuration, and a note where it was not read from a file.

    Raises:
        WeightsError: If it is missing and unknown, or of a model that transformers does not know.
    """
    path = config_path(weights)
    known = None if path.is_file() else published_opt(path.parent.name)
    if known is not None:
        return opt_config(known, weights), f"{path} is not there: the published sizes are assumed"
    content = read_config(weights)
    if content["model_type"] == "opt":
        return opt_config(content, weights), None
    try:
        return CONFIG_MAPPING[content["model_type"]].from_dict(content), None
    except KeyError as error:
        raise WeightsError(
            f"LLM: {path} says model_type {content['model_type']!r}, which the installed "
            f"transformers {transformers.__version__} does not know; use a model that it knows, "
            "for example an OPT or GPT-2"
        ) from error


def llm_from_config(config: Any) -> Any:
    """Builds a model with random weights in float32; on the meta device if that is the default.

    Raises:
        WeightsError: If transformers has no causal language model for it.
    """
    if config.model_type == "opt":
        return build_opt(config.to_dict())
    try:
        # the table itself, so that no code that a config.json points to is run
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    except KeyError as error:
        raise WeightsError(
            f"LLM: transformers has no causal language model of type {config.model_type!r}"
        ) from error
    model.tie_weights()
    return model


def load_tokenizer(folder: Path) -> Tokenizer:
    """Loads a tokenizer; without a begin or padding token the end token takes their place.

    Padding is always told by a mask, never by its id, so that the end token may serve as padding.

    Raises:
        WeightsError: If a file is missing, or the tokenizer cannot serve captioning.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise WeightsError(
            f"LLM tokenizer: {folder} has none of {', '.join(TOKENIZER_FILES)}; copy the tokenizer "
            "of the model's release there"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"LLM tokenizer: {folder} cannot be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise WeightsError(f"LLM tokenizer: {folder} names no eos_token; add it to its settings")
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    check_tokenizer(tokenizer, folder)
    return tokenizer


def missing_tokenizer_files(folder: Path) -> list[str]:
    """Lists the files without which a folder holds no tokenizer."""
    if any((folder / name).is_file() for name in TOKENIZER_FILES if name != "vocab.json"):
        return []
    return [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves out the random initialisation of weights that are overwritten at once."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _load_weights(model: Any, weights: Path) -> None:
    """Fills the model, every key accounted for; a tied weight is loaded once."""
    tensors = _with_base_prefix(read_llm_weights(weights), model)
    targets: dict[str, Tensor] = dict(model.named_parameters())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in targets or name not in tensors:
            continue
        first = next(other for other, value in targets.items() if value is parameter)
        stored = tensors.setdefault(first, tensors[name])
        if not torch.equal(stored, tensors.pop(name)):
            raise WeightsError(
                f"LLM: in {weights} {name} differs from {first}, but config.json ties them; set "
                "tie_word_embeddings to false there if that is meant"
            )
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    reasons = {**CONSTANTS, **dict.fromkeys(ignored, "transformers has no use for it")}
    load_strict(targets, tensors, str(weights), ExpectedKeys(unused=reasons))


def _with_base_prefix(tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Adds the outer name that files of the bare network lack (as the releases of GPT-2)."""
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name in tensors):
        return dict(tensors)
    heads = {name for name in model.state_dict() if not name.startswith(prefix)}
    return {name if name in heads else prefix + name: value for name, value in tensors.items()}


@torch.no_grad()
def check_captioning(model: Any, source: str) -> None:
    """Tries on five tokens what captioning asks of a language model.

    Raises:
        WeightsError: If the model sees the future, does not take embeddings, or its cache gives
            other logits than a full pass.
    """
    ids = torch.tensor([[3, 1, 2, 0, 1]]) % model.config.vocab_size
    embeds = model.get_input_embeddings()(ids)
    dtype = embeds.dtype
    tolerance = {torch.float32: 1e-3}.get(dtype, 0.1)
    try:
        full = model(inputs_embeds=embeds, attention_mask=torch.ones_like(ids)).logits
        start = model(inputs_embeds=embeds[:, :3], attention_mask=torch.ones_like(ids[:, :3]))
        cached = CachedLlm(model, embeds[:, :2], ids[:, 2:4], torch.ones_like(ids[:, 2:4]), 1)
        cached.read_prompt(copies=1)
        last = cached.read_tokens(ids[:, 4])
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise WeightsError(f"LLM: {source} cannot be used for captioning here: {reason}") from error
    scale = full.float().abs().max().clamp_min(1.0) * tolerance
    if (start.logits[0, 2] - full[0, 2]).float().abs().max() > scale:
        raise WeightsError(
            f"LLM: {source} ({model.config.model_type}) sees tokens that come later; expected a "
            "causal (decoder-only) language model"
        )
    if (last[0] - full[0, 4].float()).abs().max() > scale:
        raise WeightsError(
            f"LLM: {source} ({model.config.model_type}) gives other logits with its cache than in "
            "one pass; use another model"
        )
