"""Which tensors a checkpoint has to hold, by names and shapes, without building its encoders.

Sizes come from the settings that a checkpoint carries, and where it carries none from its tensors.
The network is built on the meta device, which keeps shapes without memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lavis_msmedcap.models.branch import QFormerBranch, QFormerSize
from lavis_msmedcap.models.checkpoint_names import branches_of
from lavis_msmedcap.models.checkpoint_settings import (
    Facts,
    Shapes,
    facts_of_settings,
    facts_of_shapes,
    image_width,
)
from lavis_msmedcap.models.encoders.clip_tower import ClipTower

LAYER_NORM = "branches.clip.encoder.ln."
EMBEDDINGS = "qformer.bert.embeddings"
QFORMER_SIZES = ("hidden_size", "num_layers", "intermediate_size", "cross_attention_freq")


def blank_tensors(
    shapes: Shapes, settings: Mapping[str, Any], captioner: bool
) -> dict[str, Tensor]:
    """Returns what a complete checkpoint holds of the branches that it speaks of.

    Args:
        shapes: Shapes of the checkpoint by our names.
        settings: The ``model:`` section of its training; empty if it is not known.
        captioner: Whether it is of stage 2.

    Returns:
        Tensors without values, on the meta device, the layer norm of the CLIP branch included.
    """
    facts = {**facts_of_shapes(shapes), **facts_of_settings(settings)}
    blank = {}
    for name in branches_of(shapes):
        prefix = f"branches.{name}."
        parts = {n[len(prefix) :]: s for n, s in shapes.items() if n.startswith(prefix)}
        width = image_width(shapes, name)
        branch = _blank_branch(name, parts, facts, width or 1, captioner)
        for key, value in branch.named_parameters():
            if name == "clip" or not key.startswith("encoder."):
                blank[f"{prefix}{key}"] = value.detach()
    return blank


def _blank_branch(
    name: str, parts: Shapes, facts: Facts, width: int, captioner: bool
) -> QFormerBranch:
    """Builds a branch on the meta device; its encoder is a layer norm of C = ``width`` alone."""
    sizes = {key: facts.get(f"model.qformer.{key}") for key in QFORMER_SIZES}
    sizes["vocab_size"] = _rows(parts, "qformer.cls.predictions.bias") or _rows(
        parts, f"{EMBEDDINGS}.word_embeddings.weight"
    )
    sizes["cross_attention_freq"] = sizes["cross_attention_freq"] or sizes["num_layers"]
    sizes["max_position"] = _rows(parts, f"{EMBEDDINGS}.position_embeddings.weight")
    sizes["hidden_size"] = sizes["hidden_size"] or _rows(parts, f"{EMBEDDINGS}.LayerNorm.weight")
    # how many heads share a width shows in no shape
    size = QFormerSize(num_heads=1, **{key: value for key, value in sizes.items() if value})
    queries = facts.get(f"model.branches.{name}.num_query_token") or 1
    with torch.device("meta"):
        return QFormerBranch(
            ClipTower(nn.Identity(), image_size=0, width=width),
            size,
            queries,
            embed_dim=None if captioner else facts.get("model.embed_dim") or 1,
            llm_width=(_rows(parts, "llm_proj.weight") or 1) if captioner else None,
        )


def _rows(parts: Shapes, name: str) -> int | None:
    """Returns the length of a tensor's first dimension, None if it is not there."""
    shape = parts.get(name)
    return shape[0] if shape else None
