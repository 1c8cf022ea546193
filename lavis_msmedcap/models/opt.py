"""The frozen language model: OPT's weights, its tokenizer, and the tokens it reads and writes.

LAVIS' own OPT classes are used, so that checkpoints, attribute names and numbers stay LAVIS'.

Dimensions: B batch, L text tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lavis.models.blip2_models.modeling_opt import OPTConfig, OPTForCausalLM
from torch import Tensor
from transformers import GPT2Tokenizer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.encoders.freeze import freeze
from lavis_msmedcap.models.weights import PRECISIONS, ExpectedKeys, load_strict, read_weights

IGNORED_LABEL = -100
END_OF_CAPTION = "\n"
WEIGHTS_NAMES = (  # in order of preference; an index lists the shards of a split file
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_NAMES = ("vocab.json", "merges.txt", "tokenizer_config.json")
EMBEDDING_KEY = "model.decoder.embed_tokens.weight"
HEAD_KEY = "lm_head.weight"


class CaptionInputs(NamedTuple):
    """Training text of one batch.

    Attributes:
        input_ids: int64 (B, L), padded on the right.
        attention_mask: int64 (B, L), 1 for tokens, 0 for padding.
        targets: int64 (B, L), ``input_ids`` where the loss counts and -100 elsewhere. Unshifted:
            the model compares position ``i`` with its prediction from ``i - 1``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    targets: Tensor


class PromptInputs(NamedTuple):
    """Texts of one batch, for decoding.

    Attributes:
        input_ids: int64 (B, L), padded on the left (prompts) or right (answers).
        attention_mask: int64 (B, L), 1 for tokens, 0 for padding.
    """

    input_ids: Tensor
    attention_mask: Tensor


def build_opt(config: Mapping[str, Any]) -> OPTForCausalLM:
    """Builds OPT with random weights, trainable, in float32.

    Args:
        config: Keys of a ``config.json``: ``vocab_size``, ``hidden_size``, ``num_hidden_layers``,
            ``num_attention_heads``, ``ffn_dim``, ...
    """
    model = OPTForCausalLM(OPTConfig.from_dict(dict(config)))
    _tie_head(model)
    return model


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
    config = _read_config(weights)
    with torch.device("meta"):  # every weight comes from the file: initialising them is wasted
        model = OPTForCausalLM(config)
    model = model.to(PRECISIONS[precision]).to_empty(device="cpu")
    _tie_head(model)
    _load_weights(model, weights)
    _refuse_overflow(model, weights, precision)
    loaded_tokenizer = load_opt_tokenizer(tokenizer)
    _check_pairing(config, loaded_tokenizer, tokenizer)
    return freeze(model), loaded_tokenizer


def load_opt_tokenizer(folder: Path) -> GPT2Tokenizer:
    """Loads a byte-level BPE tokenizer; nothing is ever looked up outside the folder.

    It is the class that ``AutoTokenizer`` with ``use_fast=False`` gives LAVIS for OPT.

    Raises:
        WeightsError: If a file is missing, or the tokenizer cannot serve captioning: no padding
            token, no single token for the line break, or a prompt whose tokens change when a
            caption follows it.
    """
    absent = [name for name in TOKENIZER_NAMES if not (folder / name).is_file()]
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
    end_of_caption_id(tokenizer)
    alone = _encode(tokenizer, "a photo of")
    if _encode(tokenizer, "a photo of a chest")[: len(alone)] != alone:
        raise WeightsError(
            f"OPT tokenizer: in {folder} the tokens of a prompt change when a caption follows it; "
            "expected a byte-level BPE that keeps the space with the word after it"
        )
    return tokenizer


def end_of_caption_id(tokenizer: GPT2Tokenizer) -> int:
    r"""Returns the id of ``"\n"``, which ends every caption (``</s>`` does not, as in BLIP-2).

    Raises:
        WeightsError: If the line break is not one token of the tokenizer.
    """
    ids = _encode(tokenizer, END_OF_CAPTION)
    if len(ids) != 1:
        raise WeightsError(
            f"OPT tokenizer: the line break that ends a caption must be one token, got {ids}"
        )
    return ids[0]


def caption_inputs(
    tokenizer: GPT2Tokenizer,
    prompts: Sequence[str],
    captions: Sequence[str],
    max_txt_len: int,
    mask_bos: bool = True,
) -> CaptionInputs:
    r"""Tokenizes ``prompt + " " + caption + "\n"`` for training; the loss is on the caption only.

    Every text starts with ``</s>``, OPT's begin-of-sequence token. Runs of white space inside a
    caption become one space: a line break in its middle would teach the model to stop there. A text
    that is too long loses its end, and with it the line break: a caption that was cut does not
    teach where captions stop (as in LAVIS).

    Args:
        tokenizer: From :func:`load_opt`.
        prompts: B prompts, each of its own length; "" for none.
        captions: B captions.
        max_txt_len: Largest number of tokens of one text, ``</s>`` and the line break included.
        mask_bos: True leaves ``</s>`` out of the loss. False counts it when the prompt is empty,
            which is what LAVIS' ``Blip2OPT.forward`` does: there the first thing the visual prefix
            has to predict is ``</s>``, the same for every image. No difference with a prompt.

    Raises:
        ValueError: If a prompt leaves no room for a caption within ``max_txt_len``.
    """
    if len(prompts) != len(captions):
        raise ValueError(f"{len(prompts)} prompts for {len(captions)} captions; expected as many")
    heads = {prompt: _prompt_ids(tokenizer, prompt) for prompt in set(prompts)}
    longest = max(heads.values(), key=len, default=[])
    if len(longest) >= max_txt_len:
        raise ValueError(
            f"max_txt_len is {max_txt_len}, but the prompt alone has {len(longest)} tokens with "
            "</s>; raise max_txt_len or shorten the prompt"
        )
    rows, masked = [], []
    for prompt, caption in zip(prompts, captions):
        head = heads[prompt]
        text = " ".join(part for part in (prompt.rstrip(), *caption.split()) if part)
        ids = [tokenizer.bos_token_id, *_encode(tokenizer, text + END_OF_CAPTION)]
        if ids[: len(head)] != head:
            raise ValueError(f"prompt {prompt!r} is tokenized differently before {caption[:40]!r}")
        rows.append(ids[:max_txt_len])
        masked.append(len(head) if mask_bos or len(head) > 1 else 0)
    input_ids, attention_mask = _pad(rows, tokenizer.pad_token_id, left=False)
    position = torch.arange(input_ids.shape[1])
    counted = (position >= torch.tensor(masked)[:, None]) & (attention_mask == 1)
    return CaptionInputs(input_ids, attention_mask, input_ids.masked_fill(~counted, IGNORED_LABEL))


def prompt_inputs(tokenizer: GPT2Tokenizer, prompts: Sequence[str]) -> PromptInputs:
    """Tokenizes prompts for decoding, each with ``</s>`` in front, padded on the left.

    White space at the end of a prompt is dropped, as in :func:`caption_inputs`: the space belongs
    to the first word of the caption.
    """
    rows = [_prompt_ids(tokenizer, prompt) for prompt in prompts]
    return PromptInputs(*_pad(rows, tokenizer.pad_token_id, left=True))


def answer_inputs(tokenizer: GPT2Tokenizer, answers: Sequence[str]) -> PromptInputs:
    r"""Tokenizes answers that follow a prompt: a space before, ``"\n"`` after, padded on the right.

    They are the tokens that :func:`caption_inputs` puts behind a prompt.
    """
    rows = [
        _encode(tokenizer, f" {' '.join(answer.split())}{END_OF_CAPTION}") for answer in answers
    ]
    return PromptInputs(*_pad(rows, tokenizer.pad_token_id, left=False))


def decode_captions(tokenizer: GPT2Tokenizer, token_lists: Sequence[Sequence[int]]) -> list[str]:
    """Turns generated tokens into captions, without special tokens and outer white space."""
    texts = tokenizer.batch_decode(
        [list(tokens) for tokens in token_lists],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=True,  # LAVIS' behaviour; not the default of every version
    )
    return [text.strip() for text in texts]


def _encode(tokenizer: GPT2Tokenizer, text: str) -> list[int]:
    """Tokenizes without ``</s>`` (added here by hand: not every version of the class adds it)."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _prompt_ids(tokenizer: GPT2Tokenizer, prompt: str) -> list[int]:
    return [tokenizer.bos_token_id, *_encode(tokenizer, prompt.rstrip())]


def _pad(rows: Sequence[Sequence[int]], pad_id: int, left: bool) -> tuple[Tensor, Tensor]:
    """Pads token lists to the longest; returns ids and mask, both int64 (B, L)."""
    length = max((len(row) for row in rows), default=0)
    input_ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for index, row in enumerate(rows):
        place = slice(length - len(row), length) if left else slice(0, len(row))
        input_ids[index, place] = torch.tensor(row, dtype=torch.long)
        attention_mask[index, place] = 1
    return input_ids, attention_mask


def _read_config(weights: Path) -> OPTConfig:
    """Reads ``config.json`` of a model folder (or beside a weights file)."""
    path = (weights if weights.is_dir() else weights.parent) / "config.json"
    if not path.is_file():
        raise WeightsError(f"OPT: {path} does not exist; it comes with the model's weights")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"OPT: {path} is not JSON: {error}") from error
    model_type = content.get("model_type") if isinstance(content, dict) else None
    if model_type != "opt":
        raise WeightsError(f"OPT: {path} says model_type {model_type!r}; expected 'opt'")
    return OPTConfig.from_dict(content)


def _weight_files(weights: Path) -> list[Path]:
    """Finds the files that hold the weights: one, or the shards that an index lists."""
    path = weights
    if weights.is_dir():
        found = [weights / name for name in WEIGHTS_NAMES if (weights / name).is_file()]
        if not found:
            raise WeightsError(
                f"OPT: no weights in {weights}; expected {WEIGHTS_NAMES[0]} or one "
                f"of {', '.join(WEIGHTS_NAMES[1:])}"
            )
        path = found[0]
    if path.suffix != ".json":
        return [path]
    try:
        shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"OPT: {path} is not an index with a weight_map") from error
    return [path.parent / name for name in sorted(shards)]


def _load_weights(model: OPTForCausalLM, weights: Path) -> None:
    """Fills the model, every key accounted for."""
    tensors: dict[str, Tensor] = {}
    for path in _weight_files(weights):
        tensors.update(read_weights(path))
    tensors = {
        # the releases of 350m, 6.7b, 13b and 30b were saved without the outer "model."
        f"model.{name}" if name.startswith("decoder.") else name: value
        for name, value in tensors.items()
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


def _refuse_overflow(model: OPTForCausalLM, weights: Path, precision: str) -> None:
    """A weight that is finite in the file can overflow in float16."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise WeightsError(
                f"OPT: {name} of {weights} does not fit the range of {precision}; use bf16 or fp32"
            )


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
    if len(tokenizer) > config.vocab_size:
        raise WeightsError(
            f"OPT tokenizer in {folder} has {len(tokenizer)} tokens, the model only "
            f"{config.vocab_size}; use the tokenizer that came with the model"
        )
