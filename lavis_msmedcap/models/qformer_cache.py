"""The Q-Former as a text decoder with a key/value cache (ITG): image once, then token by token.

Dimensions: B batch, Q query tokens, R rows (sequences under way), V text vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.key_values import KeyValues, reorder_tail, repeat_rows

if TYPE_CHECKING:
    from lavis.models.blip2_models.Qformer import BertLMHeadModel


class CachedQFormer:
    """A Q-Former whose queries have read the images and that now writes.

    The queries do not see the text, so they pass once per image; the text sees the queries and
    what stands before it.

    Args:
        qformer: LAVIS' ``BertLMHeadModel`` with its text half.
        query_tokens: float (1, Q, D).
        image: Encoder output of B images.
        start_id: Id of [DEC], which every caption starts with.
    """

    def __init__(
        self, qformer: BertLMHeadModel, query_tokens: Tensor, image: ImageEmbeds, start_id: int
    ) -> None:
        self._qformer = qformer
        self._image = image
        self._queries = query_tokens.expand(image.embeds.shape[0], -1, -1)
        self._start_id = start_id
        self._cache: KeyValues = ()

    def read_prompt(self, copies: int) -> Tensor:
        """Lets the queries read the images and starts the captions.

        Args:
            copies: Rows per image.

        Returns:
            Logits of the first caption token, float32 (B * copies, V).
        """
        output = self._qformer.bert(
            query_embeds=self._queries,
            encoder_hidden_states=self._image.embeds.to(self._queries.dtype),
            encoder_attention_mask=self._image.atts,
            use_cache=True,
            return_dict=True,
        )
        self._cache = output.past_key_values
        starts = self._image.atts.new_full((len(self._queries),), self._start_id)
        logits = self.read_tokens(starts)
        self._cache = repeat_rows(self._cache, copies)
        return logits.repeat_interleave(copies, dim=0)

    def read_tokens(self, tokens: Tensor) -> Tensor:
        """Reads one more token per row, int64 (R,); returns the logits after it, (R, V)."""
        seen = self._cache[0][0].shape[2]
        output = self._qformer(
            tokens[:, None],
            attention_mask=tokens.new_ones(len(tokens), seen + 1),
            past_key_values=self._cache,
            use_cache=True,
            return_dict=True,
        )
        self._cache = output.past_key_values
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def reorder(self, rows: Tensor) -> None:
        """Lets row ``i`` continue from row ``rows[i]``, which must be of the same image."""
        shared = self._queries.shape[1] + 1  # queries and [DEC]
        reorder_tail(self._cache, rows, shared)
