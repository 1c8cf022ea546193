"""Writing captions: one loop for greedy search, nucleus sampling and beam search.

The loop calls the network itself, so it does not depend on the ``generate`` of the installed
transformers: LAVIS 1.0.2's own path fails with versions after 4.26, and under 4.26 it recomputes
the visual prefix in every step, for every beam. Here the prefix passes through the LLM once per
image, and each step adds one token to a key/value cache. Stage 1 writes with the same loop
(`models.qformer_cache`).

The rules are those of LAVIS' ``Blip2OPT.generate`` under transformers 4.26, with one change: where
that counts the padded length of a batch, each sample's own prompt counts. A caption is therefore
the same whether its image is alone or in a batch (up to float rounding: a batch of another size
may round differently, which shows only where two candidates tie).

Dimensions: B batch, P prefix tokens, L prompt tokens, D_lm LLM width, R rows (sequences under way:
B, times beams or samples per image), V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

import torch
from torch import Tensor

from lavis_msmedcap.common.errors import ArgumentError
from lavis_msmedcap.models.decoding_policies import (
    BeamSearch,
    Policy,
    Rules,
    RunningText,
    Sampler,
    SingleTrack,
)
from lavis_msmedcap.models.llm_cache import CachedLlm, check_positions
from lavis_msmedcap.models.logits import refuse_nonfinite

DEFAULT_TOP_K = 50  # LAVIS passes no top_k, so Hugging Face's default applies when sampling
# length ** length_penalty and a score divided by it stay far inside the range of a float64
LARGEST_EXPONENT = 600.0


class Network(Protocol):
    """What the loop asks of a network; R rows, V vocabulary."""

    def read_prompt(self, copies: int) -> Tensor:
        """Reads what stands in front; returns logits (B * copies, V) of the first token."""

    def read_tokens(self, tokens: Tensor) -> Tensor:
        """Reads one token (R,) per row; returns the logits (R, V) of the next."""

    def reorder(self, rows: Tensor) -> None:
        """Lets row ``i`` continue from row ``rows[i]``, which is of the same image."""


@dataclass(frozen=True)
class Search:
    """How captions are chosen; the fields are the arguments of :func:`generate`.

    Raises:
        ArgumentError: If they contradict each other.
    """

    eos_token_id: int
    pad_token_id: int
    num_beams: int = 5
    max_new_tokens: int = 30
    min_length: int = 1
    do_sample: bool = False
    top_p: float = 0.9
    top_k: int = DEFAULT_TOP_K
    temperature: float = 1.0
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0
    num_return_sequences: int = 1
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        _check_counts(
            self.num_beams, self.num_return_sequences, self.max_new_tokens, self.do_sample
        )
        if not 0.0 < self.repetition_penalty < math.inf:
            raise ArgumentError(
                f"{{repetition_penalty}} is {self.repetition_penalty}; expected a number above 0 "
                "(1 changes nothing, more discourages repetition)"
            )
        _check_sampling(self.do_sample, self.top_p, self.top_k, self.temperature)

    @property
    def is_beam_search(self) -> bool:
        """Tells whether beams are searched; sampling uses none, as in LAVIS."""
        return self.num_beams > 1 and not self.do_sample

    def policy(self, text: RunningText) -> Policy:
        """Returns what chooses the tokens of these rows."""
        rules = Rules(self.eos_token_id, self.min_length, self.repetition_penalty)
        if self.is_beam_search:
            return BeamSearch(
                text,
                rules,
                self.num_beams,
                self.length_penalty,
                self.num_return_sequences,
                self.pad_token_id,
            )
        sampler = Sampler(self.top_p, self.top_k, self.temperature, self.generator)
        return SingleTrack(text, rules, self.pad_token_id, sampler if self.do_sample else None)


@torch.no_grad()
def generate(
    llm: Any,
    prefix_embeds: Tensor,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    eos_token_id: int,
    pad_token_id: int,
    num_beams: int = 5,
    max_new_tokens: int = 30,
    min_length: int = 1,
    do_sample: bool = False,
    top_p: float = 0.9,
    top_k: int = DEFAULT_TOP_K,
    temperature: float = 1.0,
    repetition_penalty: float = 1.0,
    length_penalty: float = 1.0,
    num_return_sequences: int = 1,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Writes captions after a visual prefix and a prompt.

    Args:
        llm: Causal language model in evaluation mode.
        prefix_embeds: float (B, P, D_lm), cast to the type of the model's embeddings.
        prompt_ids: int64 (B, L), padded on the left, ``</s>`` in front of every prompt.
        prompt_mask: int64 (B, L), 1 for tokens; at least one in each row.
        eos_token_id: Ends a caption; for BLIP-2 the id of the line break, not ``</s>``.
        pad_token_id: Fed to the network for captions that have ended; has no effect on others.
        num_beams: 1 is greedy search. Not used when sampling, as in LAVIS.
        max_new_tokens: Largest number of caption tokens (LAVIS' ``max_length``).
        min_length: A caption may end once prompt and caption together have this many tokens,
            ``</s>`` included, as in Hugging Face's rule; so 1 never has an effect.
        do_sample: Draw each token instead of searching.
        top_p: Sampling: only the best tokens that together reach this probability.
        top_k: Sampling: only this many best tokens, applied before ``top_p``; 0 for no limit. LAVIS
            does not name it, but runs with Hugging Face's default of 50.
        temperature: Sampling: > 1 flattens the distribution; applied before ``top_k``.
        repetition_penalty: See :func:`lavis_msmedcap.models.logits.penalize_repetition`; prompt
            and ``</s>`` count as said, padding does not.
        length_penalty: Beam search ranks captions by log-probability divided by
            ``length ** length_penalty``, where the length is that of prompt and caption, ``</s>``
            included and the end token not (transformers 4.26; later versions leave the prompt
            out). > 0 favours long captions.
        num_return_sequences: Captions per image: independent draws, or the best beams, best first.
        generator: Source of randomness of sampling, on the device of the model. Draws of a batch
            come from one stream, so sampled captions depend on what else is in the batch.

    Returns:
        B * num_return_sequences token lists, those of one image together, without prompt, padding
        and end token.

    Raises:
        ArgumentError: If the arguments contradict each other, or prefix, prompt and caption exceed
            the model's positions.
        NotFiniteOutputError: If the model gives nan or infinite logits for an image.
        ValueError: If the tensors do not belong together.
    """
    search = Search(
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        min_length=min_length,
        do_sample=do_sample,
        top_p=top_p,
        top_k=top_k,
        temperature=temperature,
        repetition_penalty=repetition_penalty,
        length_penalty=length_penalty,
        num_return_sequences=num_return_sequences,
        generator=generator,
    )
    prompt_lengths = _check_prompt(prefix_embeds, prompt_ids, prompt_mask)
    if not prompt_lengths:
        return []
    check_positions(llm, prefix_embeds.shape[1], max(prompt_lengths), max_new_tokens)
    cached = CachedLlm(llm, prefix_embeds, prompt_ids, prompt_mask, max_new_tokens)
    return decode(cached, prompt_ids, prompt_mask, search)


@torch.no_grad()
def decode(
    network: Network, prompt_ids: Tensor, prompt_mask: Tensor, search: Search
) -> list[list[int]]:
    """Writes captions with any network that keeps what it has read.

    Args:
        network: Has been given everything that stands in front of the caption.
        prompt_ids: int64 (B, L), the tokens in front of the caption, padded on the left; they count
            for lengths and repetition.
        prompt_mask: int64 (B, L), at least one token in each row.
        search: How tokens are chosen.

    Returns:
        See :func:`generate`.

    Raises:
        ArgumentError: If the least length cannot be reached, or the length penalty is out of range.
        NotFiniteOutputError: If the network gives nan or infinite logits for an image.
    """
    prompt_lengths: list[int] = prompt_mask.long().sum(dim=1).tolist()
    _check_least_length(search, prompt_lengths)
    _check_length_penalty(search, max(prompt_lengths))
    copies = search.num_beams if search.is_beam_search else search.num_return_sequences
    text = RunningText(prompt_ids, prompt_mask, prompt_lengths, copies, search.max_new_tokens)
    policy = search.policy(text)
    logits = network.read_prompt(copies)
    for step in range(1, search.max_new_tokens + 1):
        refuse_nonfinite(logits, copies)
        tokens, rows = policy.advance(logits)
        if policy.is_done() or step == search.max_new_tokens:
            break
        if rows is not None:
            network.reorder(rows)
        logits = network.read_tokens(tokens)
    return policy.captions()


def _check_counts(
    num_beams: int, num_return_sequences: int, max_new_tokens: int, do_sample: bool
) -> None:
    """Refuses numbers of beams, captions and tokens that contradict each other."""
    counts: dict[str, Any] = {  # notebooks are not type-checked
        "num_beams": num_beams,
        "num_return_sequences": num_return_sequences,
        "max_new_tokens": max_new_tokens,
    }
    for name, value in counts.items():
        if not isinstance(value, Integral) or value < 1:
            raise ArgumentError(f"{{{name}}} is {value}; expected a whole number, at least 1")
    if not do_sample and num_return_sequences > num_beams:
        raise ArgumentError(
            f"{{num_return_sequences}} is {num_return_sequences} with {{num_beams}} {num_beams}; a "
            "search returns at most one caption per beam: raise {num_beams}, or sample"
        )


def _check_sampling(do_sample: bool, top_p: float, top_k: int, temperature: float) -> None:
    """Refuses settings that leave nothing to draw from."""
    if not do_sample:
        return
    if not 0.0 < top_p <= 1.0:
        raise ArgumentError(f"{{top_p}} is {top_p}; expected a probability above 0 and at most 1")
    if not 0.0 < temperature < math.inf:
        raise ArgumentError(f"{{temperature}} is {temperature}; expected more than 0")
    if top_k < 0:
        raise ArgumentError(f"{{top_k}} is {top_k}; expected at least 1, or 0 for no limit")


def _check_prompt(prefix_embeds: Tensor, prompt_ids: Tensor, prompt_mask: Tensor) -> list[int]:
    """Checks shapes and padding; returns the number of tokens of each prompt."""
    if prompt_ids.shape != prompt_mask.shape or len(prompt_ids) != len(prefix_embeds):
        raise ValueError(
            f"prefix {tuple(prefix_embeds.shape)}, prompt {tuple(prompt_ids.shape)} and its mask "
            f"{tuple(prompt_mask.shape)} do not belong together; expected (B, P, D), (B, L), (B, L)"
        )
    lengths: list[int] = prompt_mask.long().sum(dim=1).tolist()
    if 0 in lengths or not bool(prompt_mask[:, -1:].all()):
        raise ValueError(
            "every prompt needs at least one token (</s>) and padding on the left; pad with "
            "lavis_msmedcap.models.llm_text.prompt_inputs"
        )
    return lengths


def _check_least_length(search: Search, prompt_lengths: Sequence[int]) -> None:
    """Refuses a least length that cannot be reached."""
    if search.min_length > min(prompt_lengths) + search.max_new_tokens:
        raise ArgumentError(
            f"{{min_length}} is {search.min_length}, but prompt and caption have at most "
            f"{min(prompt_lengths)} + {search.max_new_tokens} tokens; raise {{max_new_tokens}}, or "
            "lower {min_length}"
        )


def _check_length_penalty(search: Search, longest_prompt: int) -> None:
    """Refuses an exponent with which the score of a long caption leaves the range of a float."""
    if not search.is_beam_search:
        return
    longest = longest_prompt + search.max_new_tokens  # at least 2
    limit = LARGEST_EXPONENT / math.log(longest)
    if not abs(search.length_penalty) <= limit:
        raise ArgumentError(
            f"{{length_penalty}} is {search.length_penalty}; for prompt and caption of up to "
            f"{longest} tokens expected between {-limit:.0f} and {limit:.0f}"
        )
