"""OPT with a key/value cache: the prompt is read once, then one token per row and step.

Dimensions: B batch, P prefix tokens, L prompt tokens, D_lm LLM width, R rows (sequences under way),
V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lavis_msmedcap.models.key_values import KeyValues, reorder_tail, repeat_rows

if TYPE_CHECKING:
    from lavis.models.blip2_models.modeling_opt import OPTForCausalLM


def check_positions(opt_model: OPTForCausalLM, prefix: int, prompt: int, new_tokens: int) -> None:
    """Refuses lengths that the model has no positions for.

    Raises:
        ValueError: With the three lengths and the number of positions.
    """
    positions = opt_model.config.max_position_embeddings
    if prefix + prompt + new_tokens > positions:
        raise ValueError(
            f"prefix, prompt and caption need {prefix} + {prompt} + {new_tokens} positions, the "
            f"model has {positions}; lower max_new_tokens"
        )


class CachedOpt:
    """OPT with its key/value cache: the prompt in one pass, then one token per row and step.

    Args:
        opt_model: LAVIS' ``OPTForCausalLM``.
        prefix_embeds: float (B, P, D_lm).
        prompt_ids: int64 (B, L), padded on the left. The padding stands between prefix and prompt;
            it is masked, and OPT counts positions along the mask, so it changes nothing.
        prompt_mask: int64 (B, L).
        max_new_tokens: Room for this many tokens is kept in the mask.
    """

    def __init__(
        self,
        opt_model: OPTForCausalLM,
        prefix_embeds: Tensor,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        max_new_tokens: int,
    ) -> None:
        self._decoder = opt_model.get_decoder()
        self._head = opt_model.get_output_embeddings()
        prompt_embeds = opt_model.get_input_embeddings()(prompt_ids)
        self._embeds = torch.cat([prefix_embeds.to(prompt_embeds.dtype), prompt_embeds], dim=1)
        seen = prompt_mask.new_ones(prefix_embeds.shape[:2])
        ahead = prompt_mask.new_ones(len(prompt_mask), max_new_tokens)
        self._mask = torch.cat([seen, prompt_mask, ahead], dim=1)
        self._prompt_end = self._end = self._embeds.shape[1]
        self._cache: KeyValues = ()

    def read_prompt(self, copies: int) -> Tensor:
        """Reads prefix and prompt once per image, then makes rows of the result.

        Args:
            copies: Rows per image.

        Returns:
            Logits of the first caption token, float32 (B * copies, V).
        """
        output = self._decoder(
            inputs_embeds=self._embeds,
            attention_mask=self._mask[:, : self._end],
            use_cache=True,
            return_dict=True,
        )
        self._cache = output.past_key_values
        logits: Tensor = self._head(output.last_hidden_state[:, -1]).float()
        if copies > 1:
            self._cache = repeat_rows(self._cache, copies)
            self._mask = self._mask.repeat_interleave(copies, dim=0)
            logits = logits.repeat_interleave(copies, dim=0)
        return logits

    def read_tokens(self, tokens: Tensor) -> Tensor:
        """Reads one more token per row.

        Args:
            tokens: int64 (R,).

        Returns:
            Logits of the token after it, float32 (R, V).
        """
        self._end += 1
        output = self._decoder(
            input_ids=tokens[:, None],
            attention_mask=self._mask[:, : self._end],
            past_key_values=self._cache,
            use_cache=True,
            return_dict=True,
        )
        self._cache = output.past_key_values
        logits: Tensor = self._head(output.last_hidden_state[:, -1]).float()
        return logits

    def reorder(self, rows: Tensor) -> None:
        """Lets row ``i`` continue from row ``rows[i]``, which must be of the same image.

        All rows of an image share prefix and prompt, so only the caption part of the cache moves.

        Args:
            rows: int64 (R,).
        """
        reorder_tail(self._cache, rows, self._prompt_end)
