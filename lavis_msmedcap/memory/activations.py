"""Bytes that a step needs besides parameters: formulas that count what each operation keeps.

For training these are the tensors that autograd saves for the backward pass of the eager networks
of LAVIS and Hugging Face, counted operation by operation; for the frozen encoders, which keep
nothing, the live tensors of the largest block.

Dimensions: B batch, N image tokens, C encoder width, Q query tokens, L text tokens, T positions
(queries and text together), K positions attended to, H heads, D width, F hidden width of the
feed-forward part, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lavis_msmedcap.memory.shapes import EncoderShape, LlmShape
from lavis_msmedcap.models.branch import QFormerSize


@dataclass(frozen=True)
class Types:
    """Bytes per value.

    Attributes:
        matmul: What matrix products work on: that of the parameters, 2 under autocast.
        wide: What softmax and layer norm work on: that of the parameters, 4 under autocast.
        cast: Autocast casts every input of a product anew, and each copy is kept.
    """

    matmul: int
    wide: int
    cast: bool

    @classmethod
    def of(cls, precision: int, amp: bool) -> Types:
        """Returns the types of parameters of ``precision`` bytes, under autocast or not."""
        return cls(2, 4, True) if amp else cls(precision, precision, False)


class Need(NamedTuple):
    """Memory of one part.

    Attributes:
        kept: Bytes that wait for the backward pass.
        passing: Bytes that are alive for a moment only; those of different parts never meet.
    """

    kept: int
    passing: int = 0


# --- Q-Former (LAVIS' BertLayer) ------------------------------------------------------------------


@dataclass(frozen=True)
class QFormerPass:
    """One pass through a Q-Former.

    Attributes:
        batch: B.
        queries: Q; 0 in a pass of text alone.
        text: L; 0 in a pass of queries alone.
        past: Keys of an earlier pass that are attended to as well.
        image_tokens: N, 0 without cross-attention.
        image_width: C.
        keeps_keys: Keys and values go on to another pass (``use_cache``).
    """

    batch: int
    queries: int
    text: int
    past: int = 0
    image_tokens: int = 0
    image_width: int = 0
    keeps_keys: bool = False


def qformer_bytes(
    size: QFormerSize, run: QFormerPass, types: Types, dropout: bool, checkpointing: bool
) -> Need:
    """Returns what one pass needs for its backward pass, without heads.

    With checkpointing a layer keeps its input (and keys that go on), and one layer at a time is
    computed again.
    """
    cross = [
        run.image_tokens > 0 and index % size.cross_attention_freq == 0
        for index in range(size.num_layers)
    ]
    layers = [_qformer_layer(size, run, types, dropout, crosses) for crosses in cross]
    image = run.batch * run.image_tokens * run.image_width
    shared = 0 if types.cast else image * types.matmul  # one tensor for all layers
    positions = run.batch * (run.queries + run.text) * size.hidden_size
    embeddings = _residual(positions, types, dropout)
    if not checkpointing:
        return Need(embeddings + sum(layers) + shared)
    kept = positions * types.wide + (2 * positions * types.matmul if run.keeps_keys else 0)
    kept = embeddings + size.num_layers * kept + image * types.wide
    return Need(kept, max(layers))


def _qformer_layer(
    size: QFormerSize, run: QFormerPass, types: Types, dropout: bool, crosses: bool
) -> int:
    queries, texts = run.batch * run.queries, run.batch * run.text
    total = _attention(size, run.batch, run.queries + run.text, run.past, types, dropout)
    if crosses:
        image = run.batch * run.image_tokens
        if types.cast:
            total += 2 * image * run.image_width * types.matmul  # for keys and for values
        total += 2 * image * size.hidden_size * types.matmul  # keys and values
        total += queries * size.hidden_size * 3 * types.matmul  # before, as and after queries
        total += _scores(
            run.batch * size.num_heads * run.queries * run.image_tokens, types, dropout
        )
        total += _residual(queries * size.hidden_size, types, dropout)
    # queries and text have feed-forward parts of their own
    positions = (queries + texts) * size.hidden_size
    hidden = (queries + texts) * size.intermediate_size
    return total + (positions + 2 * hidden) * types.matmul + _residual(positions, types, dropout)


def _attention(
    size: QFormerSize, batch: int, positions: int, past: int, types: Types, dropout: bool
) -> int:
    values = batch * positions * size.hidden_size
    earlier = batch * past * size.hidden_size
    inputs = (3 if types.cast else 1) * values
    scores = _scores(batch * size.num_heads * positions * (positions + past), types, dropout)
    # inputs of the three projections; queries; keys and values; input of the output projection
    products = (inputs + values + 2 * (values + earlier) + values) * types.matmul
    return products + scores + _residual(values, types, dropout)


def _scores(count: int, types: Types, dropout: bool) -> int:
    """Softmax output, the weights after dropout or cast, and the dropout mask."""
    second = types.matmul if types.cast or dropout else 0
    return count * (types.wide + second + (types.wide if dropout and types.cast else 0) + dropout)


def _residual(values: int, types: Types, dropout: bool) -> int:
    """Input of a layer norm behind a residual sum, and the dropout mask."""
    return values * (types.wide + dropout)


def text_head_bytes(size: QFormerSize, batch: int, text: int, types: Types) -> int:
    """Returns what ITG's head and loss keep: the transform, and float32 log-probabilities."""
    transform = batch * text * size.hidden_size * (3 * types.matmul + types.wide)
    return transform + batch * text * size.vocab_size * 4


# --- LLM ------------------------------------------------------------------------------------------


def llm_bytes(llm: LlmShape, batch: int, positions: int, types: Types, checkpointing: bool) -> Need:
    """Returns what the frozen LLM needs so that the gradient of the visual prefix can pass.

    Frozen projections keep nothing. Per block: inputs of two layer norms, queries, keys and values,
    scores before and after the softmax, and the activation of the feed-forward part.
    """
    values = batch * positions * llm.width
    scores = batch * llm.heads * positions * positions
    hidden = batch * positions * llm.hidden
    softmax = types.wide + (types.matmul if types.cast or types.matmul != types.wide else 0)
    block = (3 * values + hidden + scores) * types.matmul + 2 * values * types.wide
    block += scores * softmax
    if not checkpointing:
        return Need(llm.layers * block)
    return Need(llm.layers * values * types.matmul, block)


def logits_bytes(llm: LlmShape, batch: int, prefix: int, text: int, types: Types) -> Need:
    """Returns the float32 log-probabilities of the caption loss, and their gradient and origin."""
    kept = batch * text * llm.vocabulary * 4
    return Need(kept, kept + batch * (prefix + text) * llm.vocabulary * types.matmul)


def cache_bytes(llm: LlmShape, rows: int, positions: int, precision: int) -> int:
    """Returns keys and values of decoding at their largest.

    Twice: while a step builds the new cache, tensor by tensor, the old one is still there.

    Args:
        llm: Sizes.
        rows: Images times beams.
        positions: Visual prefix, prompt and caption.
        precision: Bytes per value.
    """
    return 2 * (2 * llm.layers * rows * positions * llm.width) * precision


# --- frozen encoders ------------------------------------------------------------------------------


def encoder_bytes(encoder: EncoderShape, batch: int, precision: int) -> int:
    """Returns the live tensors of the largest moment of a frozen encoder's forward pass.

    In attention: the block's input, its normalised form, the three projections and their copies by
    head. LAVIS' ViT has scores before and after the softmax; SAM has them three times over while
    it adds the relative positions of both axes. In the MLP: input and hidden layer, twice each.
    """
    values = batch * encoder.patches * encoder.vit_width
    scores = batch * encoder.heads * encoder.scores
    attention = 8 * values + 3 * scores if encoder.is_sam else 6 * values + 2 * scores
    feed_forward = 2 * values + 2 * batch * encoder.patches * encoder.hidden
    view = batch * 3 * encoder.image_size**2
    return max(attention, feed_forward) * precision + view * 4


def embeds_bytes(encoder: EncoderShape, batch: int) -> int:
    """Returns the encoder's output: float32 tokens and an int64 mask."""
    return batch * encoder.tokens * (encoder.width * 4 + 8)
