"""What a language model reads in training and decoding, and the captions it writes.

Dimensions: B batch, L text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError

IGNORED_LABEL = -100
END_OF_CAPTION = "\n"

Tokenizer = Any  # Hugging Face's, of the family that the model belongs to


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


def end_of_caption_id(tokenizer: Tokenizer) -> int:
    r"""Returns the id of ``"\n"``, which ends every caption (``</s>`` does not, as in BLIP-2).

    Raises:
        WeightsError: If the line break is not one token of the tokenizer.
    """
    word = encode(tokenizer, "a")
    ids = encode(tokenizer, "a" + END_OF_CAPTION)
    if ids[:-1] != word:
        raise WeightsError(
            "LLM tokenizer: the line break that ends a caption must be one token behind a word, "
            f"got {ids} for a word of {word}"
        )
    return ids[-1]


def check_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Checks that a tokenizer can serve captioning.

    Raises:
        WeightsError: If the line break is not one token, or the tokens of a prompt change when a
            caption follows it.
    """
    end_of_caption_id(tokenizer)
    alone = encode(tokenizer, "a photo of")
    if encode(tokenizer, "a photo of a chest")[: len(alone)] != alone:
        raise WeightsError(
            f"LLM tokenizer: in {folder} the tokens of a prompt change when a caption follows it; "
            "expected one that keeps the space with the word after it, as byte-level BPE does"
        )


def check_vocabulary(tokenizer: Tokenizer, size: int, folder: Path) -> None:
    """Checks that a model has an embedding for every token.

    Args:
        tokenizer: The tokenizer.
        size: Number of the model's embeddings.
        folder: Where the tokenizer is, for the message.

    Raises:
        WeightsError: If it has not.
    """
    if len(tokenizer) > size:
        raise WeightsError(
            f"LLM tokenizer in {folder} has {len(tokenizer)} tokens, the model only {size}; use "
            "the tokenizer that came with the model"
        )


def caption_inputs(
    tokenizer: Tokenizer,
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
    end = end_of_caption_id(tokenizer)
    rows, masked = [], []
    for prompt, caption in zip(prompts, captions):
        head = heads[prompt]
        text = " ".join(part for part in (prompt.rstrip(), *caption.split()) if part)
        # the line break is added as a token: some tokenizers join it with a full stop before it
        ids = [tokenizer.bos_token_id, *encode(tokenizer, text), end]
        if ids[: len(head)] != head:
            raise ValueError(f"prompt {prompt!r} is tokenized differently before {caption[:40]!r}")
        rows.append(ids[:max_txt_len])
        masked.append(len(head) if mask_bos or len(head) > 1 else 0)
    input_ids, attention_mask = _pad(rows, tokenizer.pad_token_id, left=False)
    position = torch.arange(input_ids.shape[1])
    counted = (position >= torch.tensor(masked)[:, None]) & (attention_mask == 1)
    return CaptionInputs(input_ids, attention_mask, input_ids.masked_fill(~counted, IGNORED_LABEL))


def prompt_inputs(tokenizer: Tokenizer, prompts: Sequence[str]) -> PromptInputs:
    """Tokenizes prompts for decoding, each with ``</s>`` in front, padded on the left.

    White space at the end of a prompt is dropped, as in :func:`caption_inputs`: the space belongs
    to the first word of the caption.
    """
    rows = [_prompt_ids(tokenizer, prompt) for prompt in prompts]
    return PromptInputs(*_pad(rows, tokenizer.pad_token_id, left=True))


def answer_inputs(tokenizer: Tokenizer, answers: Sequence[str]) -> PromptInputs:
    r"""Tokenizes answers that follow a prompt: a space before, ``"\n"`` after, padded on the right.

    They are the tokens that :func:`caption_inputs` puts behind a prompt.
    """
    end = end_of_caption_id(tokenizer)
    rows = [[*encode(tokenizer, f" {' '.join(answer.split())}"), end] for answer in answers]
    return PromptInputs(*_pad(rows, tokenizer.pad_token_id, left=False))


def decode_captions(tokenizer: Tokenizer, token_lists: Sequence[Sequence[int]]) -> list[str]:
    """Turns generated tokens into captions, without special tokens and outer white space."""
    texts = tokenizer.batch_decode(
        [list(tokens) for tokens in token_lists],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=True,  # LAVIS' behaviour; not the default of every version
    )
    return [text.strip() for text in texts]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokenizes without ``</s>`` (added here by hand: not every version of the class adds it)."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    return [tokenizer.bos_token_id, *encode(tokenizer, prompt.rstrip())]


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
