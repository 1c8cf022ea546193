"""One branch: a frozen image encoder, its Q-Former, query tokens and projections (Eq. 1-4).

The model is two instances of this class, ``clip`` and ``sam``; dropping one gives a baseline of
Table 1. LAVIS' own Q-Former (``BertLMHeadModel`` with cross-attention) is used unchanged.

Dimensions: B batch, N image tokens, Q query tokens, L text tokens, C encoder width,
D Q-Former width, E ITC width, D_lm LLM width, V text vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lavis.models.blip2_models.Qformer import BertConfig, BertLMHeadModel
from torch import Tensor, nn
from torch.nn import functional as F

from lavis_msmedcap.common.distributed import JointBatch
from lavis_msmedcap.models.encoders.clip_tower import ClipTower
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds
from lavis_msmedcap.models.encoders.sam import SamEncoder
from lavis_msmedcap.models.objectives.itc import image_text_contrast
from lavis_msmedcap.models.objectives.itg import generation_inputs, generation_loss
from lavis_msmedcap.models.objectives.itm import matching_loss, matching_pairs
from lavis_msmedcap.models.weights import PRECISIONS

TRAINABLE_PRECISIONS = ("fp32", "bf16")
PRECISION_CURE = (
    "expected fp32 or bf16 (gradients have the type of their parameters, and GradScaler refuses to "
    "unscale float16 gradients); for float16 arithmetic keep fp32 here and set run.amp: fp16"
)


@dataclass(frozen=True)
class QFormerSize:
    """Sizes of a Q-Former; the defaults are BERT-base, as in BLIP-2.

    Attributes:
        vocab_size: V, entries of the text vocabulary including [DEC].
        hidden_size: D.
        num_layers: Number of blocks.
        num_heads: Attention heads.
        intermediate_size: Hidden width of the feed-forward parts.
        cross_attention_freq: Every how many blocks the queries attend to the image.
        dropout: Dropout of hidden states and attention.
        initializer_range: Standard deviation of fresh weights; 0.02 suits BERT's width.
        max_position: Longest text.
    """

    vocab_size: int = 30523
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    cross_attention_freq: int = 2
    dropout: float = 0.1
    initializer_range: float = 0.02
    max_position: int = 512


def build_qformer(size: QFormerSize, encoder_width: int, num_query_token: int) -> BertLMHeadModel:
    """Builds a Q-Former with random weights, the query feed-forward copied from the text one.

    Args:
        size: Sizes.
        encoder_width: C, width of the image tokens it attends to.
        num_query_token: Q.
    """
    config = BertConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=size.intermediate_size,
        max_position_embeddings=size.max_position,
        hidden_dropout_prob=size.dropout,
        attention_probs_dropout_prob=size.dropout,
        initializer_range=size.initializer_range,
        pad_token_id=0,
    )
    config.encoder_width = encoder_width
    config.add_cross_attention = True
    config.cross_attention_freq = size.cross_attention_freq
    config.query_length = num_query_token
    qformer = BertLMHeadModel(config)
    # one table for reading and writing words; not every version of transformers ties it
    qformer.cls.predictions.decoder.weight = qformer.bert.embeddings.word_embeddings.weight
    copy_text_ffn_to_query_ffn(qformer)
    return qformer


@torch.no_grad()
def copy_text_ffn_to_query_ffn(qformer: BertLMHeadModel) -> None:
    """Starts the queries' feed-forward parts from the text's, as BLIP-2 does."""
    parameters = dict(qformer.named_parameters())
    for name, parameter in parameters.items():
        if "_query" in name:
            parameter.copy_(parameters[name.replace("_query", "")])


def drop_text_half(qformer: BertLMHeadModel) -> None:
    """Removes what only text needs: embeddings, text feed-forward, and the LM head (stage 2)."""
    qformer.cls = None
    qformer.bert.embeddings.word_embeddings = None
    qformer.bert.embeddings.position_embeddings = None
    for layer in qformer.bert.encoder.layer:
        layer.output = None
        layer.intermediate = None


@dataclass(frozen=True)
class Stage1Loss:
    """The three losses of one branch on one batch.

    Attributes:
        losses: ``itc``, ``itm``, ``lm`` to scalars that carry gradients: this process' shares of
            the means over the joint batch, which add up to them. ITC and ITM are means over
            samples, ITG over tokens; of one process alone the share is the mean.
        per_sample: The same names to detached (B,) values.
        image_feats: What ITC compares of the images: float (B, Q, E), L2-normalised, detached.
    """

    losses: dict[str, Tensor]
    per_sample: dict[str, Tensor]
    image_feats: Tensor


class QFormerBranch(nn.Module):
    """A frozen encoder with the trainable Q-Former that reads it.

    Args:
        encoder: Frozen encoder; ``width`` is C.
        size: Sizes of the Q-Former.
        num_query_token: Q.
        embed_dim: E, width of the ITC projections; None leaves out everything that only stage 1
            needs (text half, projections, matching head, temperature).
        llm_width: D_lm; not None adds the linear layer into the LLM (stage 2).
    """

    def __init__(
        self,
        encoder: ClipTower | SamEncoder,
        size: QFormerSize,
        num_query_token: int,
        embed_dim: int | None = 256,
        llm_width: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.qformer = build_qformer(size, encoder.width, num_query_token)
        spread = self.qformer.config.initializer_range
        self.query_tokens = nn.Parameter(
            torch.empty(1, num_query_token, size.hidden_size).normal_(0.0, spread)
        )
        if embed_dim is None:
            drop_text_half(self.qformer)
        else:
            self.vision_proj = nn.Linear(size.hidden_size, embed_dim)
            self.text_proj = nn.Linear(size.hidden_size, embed_dim)
            self.itm_head = nn.Linear(size.hidden_size, 2)
            self.temp = nn.Parameter(torch.tensor(0.07))
        if llm_width is not None:
            self.llm_proj = nn.Linear(size.hidden_size, llm_width)

    def set_precision(self, precision: str) -> None:
        """Sets the type of the trainable parameters; the encoder has a precision of its own.

        The temperature stays float32: a step of it is smaller than bfloat16 can resolve.

        Args:
            precision: ``fp32`` or ``bf16``.

        Raises:
            ValueError: If it is neither.
        """
        if precision not in TRAINABLE_PRECISIONS:
            raise ValueError(f"precision of the Q-Former is {precision!r}; {PRECISION_CURE}")
        dtype = PRECISIONS[precision]
        for name, part in self.named_children():
            if name != "encoder":
                part.to(dtype)
        self.query_tokens.data = self.query_tokens.data.to(dtype)

    def encode(self, view: Tensor, valid_sizes: Tensor) -> ImageEmbeds:
        """Runs the encoder on its view of the images.

        Args:
            view: float (B, 3, H, W), normalised for this encoder.
            valid_sizes: int64 (B, 2), image size inside the view (only SAM pads its view).

        Returns:
            Tokens (B, N, C) and their mask (B, N).
        """
        if isinstance(self.encoder, SamEncoder):
            return self.encoder(view, valid_sizes)
        return self.encoder(view)

    def query(self, image: ImageEmbeds, use_cache: bool = False) -> Any:
        """Lets the query tokens read the image (Eq. 3-4).

        Args:
            image: Encoder output.
            use_cache: Also return the keys and values of the queries, which ITG continues from.

        Returns:
            LAVIS' BERT output; ``last_hidden_state`` is the query output (B, Q, D).
        """
        return self.qformer.bert(
            query_embeds=self.query_tokens.expand(image.embeds.shape[0], -1, -1),
            encoder_hidden_states=image.embeds.to(self.query_tokens.dtype),
            encoder_attention_mask=image.atts,
            use_cache=use_cache,
            return_dict=True,
        )

    def visual_prefix(self, image: ImageEmbeds) -> Tensor:
        """Returns this branch's part of the visual prefix, float (B, Q, D_lm)."""
        return self.llm_proj(self.query(image).last_hidden_state)

    def image_feats(self, query_output: Tensor) -> Tensor:
        """Projects query output (B, Q, D) to unit vectors (B, Q, E)."""
        return F.normalize(self.vision_proj(query_output).float(), dim=-1)

    def encode_text(self, text_ids: Tensor, text_atts: Tensor) -> Tensor:
        """Runs the text alone through the Q-Former: int64 (B, L) to (B, L, D)."""
        output = self.qformer.bert(text_ids, attention_mask=text_atts, return_dict=True)
        return output.last_hidden_state

    def text_feat(self, text_output: Tensor) -> Tensor:
        """Projects the [CLS] position of text output (B, L, D) to unit vectors (B, E)."""
        return F.normalize(self.text_proj(text_output[:, 0]).float(), dim=-1)

    def multimodal(self, image: ImageEmbeds, text_ids: Tensor, text_atts: Tensor) -> Tensor:
        """Lets queries and text see each other (bidirectional mask of ITM).

        Returns:
            Query output (B, Q, D) that knows the text.
        """
        queries = self.query_tokens.expand(text_ids.shape[0], -1, -1)
        query_atts = text_atts.new_ones(queries.shape[:-1])
        output = self.qformer.bert(
            text_ids,
            query_embeds=queries,
            attention_mask=torch.cat([query_atts, text_atts], dim=1),
            encoder_hidden_states=image.embeds.to(queries.dtype),
            encoder_attention_mask=image.atts,
            return_dict=True,
        )
        return output.last_hidden_state[:, : queries.shape[1]]

    def stage1_losses(
        self,
        image: ImageEmbeds,
        text_ids: Tensor,
        text_atts: Tensor,
        pad_id: int,
        start_id: int,
        joint: JointBatch | None = None,
    ) -> Stage1Loss:
        """Computes ITC, ITM and ITG of one batch.

        A joint batch of one sample has no negatives: ITC is then 0 by definition, and ITM is left
        out rather than trained on matching pairs alone. A process without samples has to call it
        too (B = 0), because the others contrast with what all have.

        Args:
            image: Encoder output of B images.
            text_ids: int64 (B, L), of one length on all processes.
            text_atts: int64 (B, L).
            pad_id: Id of [PAD].
            start_id: Id of [DEC].
            joint: The batch of all processes; None: this one is all there is.
        """
        joint = JointBatch((text_ids.shape[0],)) if joint is None else joint
        query_output = self.query(image, use_cache=True)
        image_feats = self.image_feats(query_output.last_hidden_state)
        contrast = image_text_contrast(
            image_feats,
            self.text_feat(self.encode_text(text_ids, text_atts)),
            self.temp,
            joint,
        )
        losses = {"itc": contrast.loss.sum() / joint.total}
        per_sample = {"itc": contrast.loss.detach()}
        if joint.total > 1:
            pairs = matching_pairs(
                image, text_ids, text_atts, contrast.sim_i2t, contrast.sim_t2i, joint
            )
            matched = self.multimodal(pairs.image, pairs.text_ids, pairs.text_atts)
            loss_itm = matching_loss(self.itm_head(matched).float(), pairs.labels)
            losses["itm"] = loss_itm.sum() / joint.total
            per_sample["itm"] = loss_itm.detach()
        inputs, labels = generation_inputs(text_ids, pad_id, start_id)
        logits = self._generation_logits(inputs, text_atts, query_output.past_key_values)
        losses["lm"], loss_lm = generation_loss(logits, labels, joint)
        per_sample["lm"] = loss_lm.detach()
        return Stage1Loss(losses, per_sample, image_feats.detach())

    def _generation_logits(self, inputs: Tensor, text_atts: Tensor, past: Any) -> Tensor:
        """Predicts each next token from the queries and the text before it (causal mask of ITG).

        Returns:
            float (B, L, V).
        """
        batch, queries = inputs.shape[0], self.query_tokens.shape[1]
        attention_mask = torch.cat([text_atts.new_ones(batch, queries), text_atts], dim=1)
        output = self.qformer(
            inputs, attention_mask=attention_mask, past_key_values=past, return_dict=True
        )
        return output.logits
