"""A causal LM with its key/value cache: the prompt is read once, then one token per row and step.

Dimensions: B batch, P prefix tokens, L prompt tokens, D_lm LLM width, R rows (sequences under way),
V vocabulary.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from lavis_msmedcap.common.errors import ArgumentError
from lavis_msmedcap.models.key_values import reorder_tail
from lavis_msmedcap.models.precision import own_precision


def check_positions(
    llm: Any, prefix: int, prompt: int, new_tokens: int, cure: str = "lower {max_new_tokens}"
) -> None:
    """Refuses lengths that the model has no positions for.

    Args:
        llm: Causal language model of Hugging Face's interface.
        prefix: P.
        prompt: Tokens of the longest prompt.
        new_tokens: Tokens behind the prompt.
        cure: How to have fewer of these.

    Raises:
        ArgumentError: With the three lengths, the number of positions and what to shorten.
    """
    # models with relative positions may have no limit
    positions = getattr(llm.config, "max_position_embeddings", None)
    if positions is None or prefix + prompt + new_tokens <= positions:
        return
    room = positions - prefix - prompt
    if room < 1:
        cure = f"shorten {{prompt_ids}} to fewer than {max(1, positions - prefix)} tokens"
    else:
        cure = f"{cure} to at most {room}, or shorten {{prompt_ids}}"
    raise ArgumentError(
        f"visual prefix, prompt and caption need {prefix} + {prompt} + {new_tokens} positions, the "
        f"LLM has {positions}; {cure}"
    )


class CachedLlm:
    """A causal language model with its cache.

    Padding goes in front of everything, is masked, and has no share in positions: models that take
    ``position_ids`` get them counted along the mask, OPT and BLOOM count along it themselves, and
    for relative positions (rotary) only distances matter. So padding changes nothing.

    Args:
        llm: Causal language model of Hugging Face's interface. Its cache may be tuples of tensors,
            rows first or rows and heads in one, or one of the newer ``Cache`` objects.
        prefix_embeds: float (B, P, D_lm).
        prompt_ids: int64 (B, L), padded on the left.
        prompt_mask: int64 (B, L).
        max_new_tokens: Room for this many tokens is kept in the mask.
    """

    def __init__(
        self,
        llm: Any,
        prefix_embeds: Tensor,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        max_new_tokens: int,
    ) -> None:
        self._llm = llm
        accepted = inspect.signature(llm.forward).parameters
        self._takes_positions = "position_ids" in accepted
        # newer versions compute the logits of all prompt positions unless told otherwise
        keep = [name for name in ("logits_to_keep", "num_logits_to_keep") if name in accepted]
        self._last_only: dict[str, int] = dict.fromkeys(keep[:1], 1)
        prompt_embeds = llm.get_input_embeddings()(prompt_ids)
        with own_precision(prompt_embeds):
            embeds = torch.cat([prefix_embeds.to(prompt_embeds.dtype), prompt_embeds], dim=1)
        mask = torch.cat([prompt_mask.new_ones(prefix_embeds.shape[:2]), prompt_mask], dim=1)
        order = mask.argsort(dim=1, stable=True)  # padding first, all else as it was
        self._embeds = embeds.gather(1, order[:, :, None].expand_as(embeds))
        ahead = mask.new_ones(len(mask), max_new_tokens)
        self._mask = torch.cat([mask.gather(1, order), ahead], dim=1)
        self._positions = (self._mask.cumsum(dim=1) - 1).clamp_min(0)
        self._prompt_end = self._end = self._embeds.shape[1]
        self._cache: Any = None

    def read_prompt(self, copies: int) -> Tensor:
        """Reads prefix and prompt once per image, then makes rows of the result.

        Args:
            copies: Rows per image.

        Returns:
            Logits of the first caption token, float32 (B * copies, V).
        """
        logits = self._read(0, inputs_embeds=self._embeds)
        if copies > 1:
            images = len(logits)
            rows = torch.arange(images, device=logits.device).repeat_interleave(copies)
            if isinstance(self._cache, tuple):
                self._cache = _map_cache(self._cache, lambda s: _take_rows(s, rows, images))
            else:
                self._cache.batch_repeat_interleave(copies)
            self._mask, self._positions = self._mask[rows], self._positions[rows]
            logits = logits[rows]
        return logits

    def read_tokens(self, tokens: Tensor) -> Tensor:
        """Reads one more token per row.

        Args:
            tokens: int64 (R,).

        Returns:
            Logits of the token after it, float32 (R, V).
        """
        self._end += 1
        return self._read(self._end - 1, input_ids=tokens[:, None], past_key_values=self._cache)

    def _read(self, start: int, **inputs: Any) -> Tensor:
        """Runs the network on positions from ``start`` on; returns the last one's logits (R, V)."""
        if self._takes_positions:
            inputs["position_ids"] = self._positions[:, start : self._end]
        with own_precision(self._embeds):
            output = self._llm(
                attention_mask=self._mask[:, : self._end],
                use_cache=True,
                return_dict=True,
                **self._last_only,
                **inputs,
            )
        self._cache = output.past_key_values
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def reorder(self, rows: Tensor) -> None:
        """Lets row ``i`` continue from row ``rows[i]``, which must be of the same image.

        All rows of an image share prefix and prompt, so where the cache is laid out in the usual
        way only its caption part moves.

        Args:
            rows: int64 (R,).
        """
        if self._end == self._prompt_end:
            return
        if not isinstance(self._cache, tuple):
            self._cache.reorder_cache(rows)
        elif self._cache[0][0].dim() == 4:  # (R, heads, tokens so far, head width)
            reorder_tail(self._cache, rows, self._prompt_end)
        else:
            self._cache = _map_cache(self._cache, lambda s: _take_rows(s, rows, len(rows)))


def _map_cache(cache: tuple[tuple[Tensor, ...], ...], change: Any) -> tuple[Any, ...]:
    """Applies a function to every tensor of a cache of tuples."""
    return tuple(tuple(change(states) for states in layer) for layer in cache)


def _take_rows(states: Tensor, rows: Tensor, count: int) -> Tensor:
    """Selects rows; some models have rows and heads on one axis (BLOOM: (R * heads, ...)).

    Args:
        states: (count, ...) or (count * heads, ...).
        rows: int64, indices into ``count``.
        count: Number of rows.
    """
    split = states.view(count, -1, *states.shape[1:])
    return split.index_select(0, rows).flatten(0, 1)
