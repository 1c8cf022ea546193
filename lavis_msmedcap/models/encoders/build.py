"""Builds a frozen encoder from plain arguments and fills it with weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Union

from torch import Tensor

from lavis_msmedcap.models.encoders.clip_l import ClipLEncoder
from lavis_msmedcap.models.encoders.clip_tower import ClipTower
from lavis_msmedcap.models.encoders.clip_weights import clip_l_weights, eva_clip_weights
from lavis_msmedcap.models.encoders.eva_clip import EvaClipEncoder
from lavis_msmedcap.models.encoders.freeze import freeze
from lavis_msmedcap.models.encoders.sam import SamEncoder
from lavis_msmedcap.models.encoders.sam_sizes import fill_size
from lavis_msmedcap.models.encoders.sam_weights import sam_weights
from lavis_msmedcap.models.weights import PRECISIONS, ExpectedKeys, load_strict, refuse_overflow

FrozenEncoder = Union[ClipTower, SamEncoder]
CLIP_ENCODERS: dict[str, type[EvaClipEncoder] | type[ClipLEncoder]] = {
    "eva_clip": EvaClipEncoder,
    "clip_l": ClipLEncoder,
}
# the encoders by name, each with its file
WEIGHTS_FILES = {
    "eva_clip": "EVA-CLIP ViT-g (eva_vit_g.pth)",
    "clip_l": "CLIP ViT-L (clip_vit_L.pth)",
    "sam": "a SAM checkpoint",
}

logger = logging.getLogger(__name__)


def build_encoder(
    name: str,
    sizes: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None,
    source: str,
    precision: str = "fp32",
    freeze_ln: bool = True,
) -> FrozenEncoder:
    """Builds one encoder, frozen.

    Args:
        name: ``eva_clip``, ``clip_l`` or ``sam``.
        sizes: Arguments of the encoder's class; for SAM also ``size``, see `fill_size`.
        weights: Tensors of a published file (EVA ViT-g; CLIP ViT-L; a SAM checkpoint with
            ``image_encoder.`` keys) or of the encoder itself; None keeps the random initialisation.
        source: Where the weights came from, for messages.
        precision: ``fp32``, ``bf16`` or ``fp16``; of the ViT (the layer norm stays float32).
        freeze_ln: False leaves the layer norm behind a CLIP ViT trainable, as LAVIS does.

    Raises:
        WeightsError: If a tensor is missing, unexpected, of the wrong shape or type, or does not
            fit the range of the precision.
        ValueError: If the name is unknown, or the sizes contradict each other.
    """
    if name not in WEIGHTS_FILES:
        raise ValueError(f"encoder.name is {name!r}; expected one of {', '.join(WEIGHTS_FILES)}")
    encoder = CLIP_ENCODERS[name](**sizes) if name in CLIP_ENCODERS else _build_sam(sizes)
    if weights is not None:
        named, expected = _our_names(encoder, weights, source)
        for line in load_strict(encoder.state_dict(), named, source, expected).lines():
            logger.info(line)
    encoder.set_precision(PRECISIONS[precision])
    if weights is not None:
        refuse_overflow(encoder, source, precision, "encoder.precision")
    freeze(encoder)
    if isinstance(encoder, ClipTower) and not freeze_ln:
        encoder.ln.requires_grad_(True)
    return encoder


def _build_sam(sizes: Mapping[str, Any]) -> SamEncoder:
    encoder = SamEncoder(**fill_size(sizes))
    if encoder.input == "authors":
        logger.warning(
            "model.branches.sam.encoder.input is 'authors': the SAM encoder sees what the authors' "
            "code gives it, the CLIP view with its 8-bit values wrapped around, NOT the picture. "
            "This serves their checkpoints only; for anything else set it to 'raw'"
        )
    return encoder


def _our_names(
    encoder: FrozenEncoder, weights: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], ExpectedKeys]:
    """Returns the tensors under the encoder's names, and what may be missing or unused."""
    if isinstance(encoder, SamEncoder):
        return sam_weights(encoder, weights, source)
    if isinstance(encoder, ClipLEncoder):
        return clip_l_weights(encoder, weights)
    return eva_clip_weights(encoder, weights)
