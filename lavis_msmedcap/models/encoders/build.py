"""Builds a frozen encoder from plain arguments and fills it with weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis.models.eva_vit import interpolate_pos_embed
from torch import Tensor

from lavis_msmedcap.models.encoders.eva_clip import EvaClipEncoder
from lavis_msmedcap.models.encoders.freeze import freeze
from lavis_msmedcap.models.encoders.sam import SamEncoder
from lavis_msmedcap.models.weights import PRECISIONS, ExpectedKeys, load_strict

ENCODERS: dict[str, type[EvaClipEncoder] | type[SamEncoder]] = {
    "eva_clip": EvaClipEncoder,
    "sam": SamEncoder,
}


def build_encoder(
    name: str,
    sizes: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None,
    source: str,
    precision: str = "fp32",
    freeze_ln: bool = True,
) -> EvaClipEncoder | SamEncoder:
    """Builds one encoder, frozen.

    Args:
        name: ``eva_clip`` or ``sam``.
        sizes: Arguments of the encoder's class.
        weights: Tensors of a published file (EVA ViT-g; a SAM checkpoint with ``image_encoder.``
            keys) or of the encoder itself; None keeps the random initialisation.
        source: Where the weights came from, for messages.
        precision: ``fp32``, ``bf16`` or ``fp16``; of the ViT (the layer norm stays float32).
        freeze_ln: False leaves EVA-CLIP's final layer norm trainable, as LAVIS does.

    Raises:
        WeightsError: If a tensor is missing, unexpected or of the wrong shape.
    """
    encoder = ENCODERS[name](**sizes)
    if weights is not None:
        _load(encoder, weights, source)
    encoder.vit.to(PRECISIONS[precision])
    freeze(encoder)
    if isinstance(encoder, EvaClipEncoder) and not freeze_ln:
        encoder.ln.requires_grad_(True)
    return encoder


def _load(encoder: EvaClipEncoder | SamEncoder, weights: Mapping[str, Tensor], source: str) -> None:
    """Loads weights by name, each key accounted for."""
    if isinstance(encoder, SamEncoder):
        load_strict(encoder.state_dict(), _sam_names(weights), source)
        return
    expected = ExpectedKeys(missing={"ln.": "the layer norm comes with the BLIP-2 checkpoint"})
    load_strict(encoder.state_dict(), _eva_names(encoder, weights), source, expected)


def _sam_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Takes the image encoder out of a SAM checkpoint; its two decoders are not needed here."""
    prefix = "image_encoder."
    if any(key.startswith(prefix) for key in weights):
        return {
            "vit." + key[len(prefix) :]: value
            for key, value in weights.items()
            if key.startswith(prefix)
        }
    return dict(weights)


def _eva_names(encoder: EvaClipEncoder, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames EVA's own keys, fits its position embedding, and drops what BLIP-2 does not use.

    BLIP-2 reads the features after block 39 of 40, so the published file has one block, a norm and
    a head more than the network.
    """
    ours = encoder.state_dict()
    if "vit.cls_token" in weights:
        return dict(weights)
    fitted = dict(weights)
    interpolate_pos_embed(encoder.vit, fitted)
    depth = len(encoder.vit.blocks)
    kept = {}
    for key, value in fitted.items():
        beyond = key.startswith(f"blocks.{depth}.") or key.split(".")[0] in {
            "norm",
            "fc_norm",
            "head",
            "mask_token",
            "lm_head",
        }
        if beyond and f"vit.{key}" not in ours:
            continue
        kept[f"vit.{key}"] = value
    return kept
