"""Published weights of the CLIP encoders under the names of ours, each key accounted for."""

from __future__ import annotations

from collections.abc import Mapping

from lavis.models import clip_vit, eva_vit
from torch import Tensor

from lavis_msmedcap.models.encoders.clip_l import ClipLEncoder
from lavis_msmedcap.models.encoders.clip_tower import ClipTower
from lavis_msmedcap.models.weights import ExpectedKeys

NORM_FROM_BLIP2 = {r"^ln\.": "the file is of the ViT alone, the layer norm behind it BLIP-2's"}
VIT = "vit."  # in front of the ViT's names in an encoder
CLIP_L_EXTRA_BLOCKS = 3  # OpenAI publishes 24, LAVIS builds 21


def eva_clip_weights(
    encoder: ClipTower, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], ExpectedKeys]:
    """Renames EVA's own keys and fits its position embedding to the encoder's view.

    BLIP-2 reads the features after block 39 of 40, so the published file has one block, a norm and
    a head more than the network.

    Args:
        encoder: The network to fill, an `EvaClipEncoder`.
        weights: Tensors of ``eva_vit_g.pth``, or of the encoder itself.

    Returns:
        Tensors under the encoder's names, and what may be missing or unused.
    """
    if "vit.cls_token" in weights:
        own, rest = _parts_of(weights)
        eva_vit.interpolate_pos_embed(encoder.vit, own)
        return {**_under_vit(own), **rest}, ExpectedKeys(missing=NORM_FROM_BLIP2)
    fitted = dict(weights)
    eva_vit.interpolate_pos_embed(encoder.vit, fitted)
    unused = {
        rf"^vit\.blocks\.{len(encoder.vit.blocks)}\.": "BLIP-2 stops before EVA's last block",
        r"^vit\.(norm|fc_norm|head|lm_head)\.": "BLIP-2 stops before EVA's norm and head",
        r"^vit\.mask_token$": "it served EVA's own training",
    }
    return _under_vit(fitted), ExpectedKeys(NORM_FROM_BLIP2, unused)


def clip_l_weights(
    encoder: ClipLEncoder, weights: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], ExpectedKeys]:
    """Renames OpenAI's keys and fits the position embedding to the encoder's view, as LAVIS does.

    Args:
        encoder: The network to fill.
        weights: Tensors of ``clip_vit_L.pth``, of OpenAI's whole CLIP (``visual.`` in front of the
            image half's names), or of a `ClipLEncoder` itself.

    Returns:
        Tensors under the encoder's names, and what may be missing or unused.
    """
    if "vit.class_embedding" in weights:
        own, rest = _parts_of(weights)
        _fit_clip_l(encoder, own)
        return {**_under_vit(own), **rest}, ExpectedKeys(missing=NORM_FROM_BLIP2)
    prefix = "visual." if any(key.startswith("visual.") for key in weights) else ""
    image_half = {
        key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)
    }
    _fit_clip_l(encoder, image_half)
    depth = len(encoder.vit.transformer.resblocks)
    beyond = "|".join(str(depth + extra) for extra in range(CLIP_L_EXTRA_BLOCKS))
    unused = {
        rf"^vit\.transformer\.resblocks\.({beyond})\.": "BLIP-2 stops before CLIP's last blocks",
        r"^vit\.(ln_post\.|proj$)": "BLIP-2 stops before CLIP's norm and projection",
        r"^text half: ": "the encoder is CLIP's image half",
    }
    others = {
        f"text half: {key}": value for key, value in weights.items() if not key.startswith(prefix)
    }
    return {**_under_vit(image_half), **others}, ExpectedKeys(NORM_FROM_BLIP2, unused)


def _fit_clip_l(encoder: ClipLEncoder, image_half: dict[str, Tensor]) -> None:
    """Fits the position embedding (1 + patches, C) in place to the encoder's view."""
    positions = image_half.get("positional_embedding")
    if positions is not None and positions.is_floating_point():
        # half precision cannot be interpolated everywhere
        image_half["positional_embedding"] = positions.float()
        clip_vit.interpolate_pos_embed(encoder.vit, image_half)


def _parts_of(own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the ViT of an encoder's own tensors, without ``vit.``, and what else there is."""
    vit = {key[len(VIT) :]: value for key, value in own.items() if key.startswith(VIT)}
    return vit, {key: value for key, value in own.items() if not key.startswith(VIT)}


def _under_vit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{VIT}{key}": value for key, value in tensors.items()}
