"""Published weights of SAM-shaped image encoders under the names of ours.

Dimensions: h w side of the feature map in patches, C width of the ViT, D width of a head.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.encoders.sam import SamEncoder
from lavis_msmedcap.models.encoders.sam_sizes import shape_of
from lavis_msmedcap.models.weights import ExpectedKeys

PREFIX = "image_encoder."
POS_EMBED = "vit.pos_embed"
# Hugging Face's SamModel; the image encoder's parts to segment-anything's
HUGGING_FACE_PREFIX = "vision_encoder."
AUTHORS_PREFIX = "sam_model."  # of the whole SamModel in the authors' checkpoints
HUGGING_FACE_PARTS = {
    "patch_embed.projection.": "patch_embed.proj.",
    "neck.conv1.": "neck.0.",
    "neck.layer_norm1.": "neck.1.",
    "neck.conv2.": "neck.2.",
    "neck.layer_norm2.": "neck.3.",
    ".layer_norm": ".norm",
    "layers.": "blocks.",
}
UNUSED = {
    r"^prompt_encoder\.": "the prompt encoder: nobody points at a place here",
    r"^mask_decoder\.": "the mask decoder: no masks are made here",
    r"^pixel_(mean|std)$": "constants of the image processing",
    r"^shared_image_embedding\.": "a part of the prompt encoder",
}

logger = logging.getLogger(__name__)


def sam_weights(
    encoder: SamEncoder, weights: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Tensor], ExpectedKeys]:
    """Takes the image encoder out of a SAM checkpoint and fits it to the encoder's resolution.

    Args:
        encoder: The network to fill.
        weights: Tensors of segment-anything's checkpoints or of any network with their names
            (MedSAM for one), ``module.`` in front or not; of Hugging Face's ``SamModel``; of an
            image encoder alone; or of a `SamEncoder` itself.
        source: Where they came from, for messages.

    Returns:
        Tensors under the encoder's names, and what may be unused.

    Raises:
        WeightsError: If the file is of another size than the encoder.
    """
    named = _our_names(weights)
    _require_same_size(encoder, named, source)
    return fit_resolution(encoder, named), ExpectedKeys(unused=UNUSED)


def authors_sam_weights(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Takes the image encoder that a checkpoint of the authors may bring along out of it.

    Args:
        tensors: Tensors of the checkpoint.
        prefix: Put in front of the names of `SamEncoder`.
    """
    brought = {
        key[len(AUTHORS_PREFIX) :]: value
        for key, value in tensors.items()
        if key.startswith(AUTHORS_PREFIX)
    }
    named = _our_names(brought)
    return {f"{prefix}{key}": value for key, value in named.items() if key.startswith("vit.")}


def _our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if weights and all(key.startswith("module.") for key in weights):  # trained on several GPUs
        weights = {key[len("module.") :]: value for key, value in weights.items()}
    if any(key.startswith(HUGGING_FACE_PREFIX) for key in weights):
        weights = {_segment_anything_name(key): value for key, value in weights.items()}
    if any(key.startswith(PREFIX) for key in weights):
        return {
            "vit." + key[len(PREFIX) :] if key.startswith(PREFIX) else key: value
            for key, value in weights.items()
        }
    if "patch_embed.proj.weight" in weights:
        return {f"vit.{key}": value for key, value in weights.items()}
    return dict(weights)


def _segment_anything_name(key: str) -> str:
    if not key.startswith(HUGGING_FACE_PREFIX):
        return key
    name = key[len(HUGGING_FACE_PREFIX) :]
    for theirs, ours in HUGGING_FACE_PARTS.items():
        name = name.replace(theirs, ours)
    return PREFIX + name


def _require_same_size(encoder: SamEncoder, weights: Mapping[str, Tensor], source: str) -> None:
    """Names the size of the file, where a list of wrong shapes would leave the user to guess it."""
    have, want = shape_of(weights), shape_of(encoder.state_dict())
    if have is None or have == want:
        return
    key = "model.branches.sam.encoder"
    cure = (
        f"set {key}.size to {have.name}"
        if have.name
        else f"set {key}.width, depth, num_heads and global_attn_indexes to those of the file"
    )
    raise WeightsError(
        f"{source} holds a SAM encoder {have}, but the configuration says one {want}; {cure}, or "
        f"{key}.weights to a file of the configured size"
    )


def fit_resolution(encoder: SamEncoder, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Resizes what depends on the resolution, where the weights were trained at another one.

    The position embedding is resized bicubically, the relative positions of the blocks with global
    attention linearly, as segment-anything's ``get_rel_pos`` does at run time. Blocks with windows
    do not depend on the resolution. At the resolution of the weights nothing is touched.

    Args:
        encoder: The network to fill.
        weights: Tensors under its names.
    """
    fitted = dict(weights)
    pos_embed = weights.get(POS_EMBED)  # (1, h, w, C)
    side = encoder.image_size // encoder.patch_size
    if pos_embed is None or pos_embed.dim() != 4 or pos_embed.shape[1] == side:
        return fitted
    trained = pos_embed.shape[1]
    fitted[POS_EMBED] = _resize_grid(pos_embed, side)
    for index, block in enumerate(encoder.vit.blocks):
        for axis in ("h", "w"):
            name = f"vit.blocks.{index}.attn.rel_pos_{axis}"  # (2 * h - 1, D)
            spans_image = name in weights and weights[name].shape[0] == 2 * trained - 1
            if block.window_size == 0 and spans_image:
                fitted[name] = _resize_line(weights[name], 2 * side - 1)
    logger.info(
        "SAM position embeddings resized from %d x %d to %d x %d patches: the weights were trained "
        "at %d pixels, image_size is %d",
        trained,
        trained,
        side,
        side,
        trained * encoder.patch_size,
        encoder.image_size,
    )
    return fitted


def _resize_grid(grid: Tensor, side: int) -> Tensor:
    """Resizes (1, h, w, C) to (1, side, side, C)."""
    planes = grid.float().permute(0, 3, 1, 2)  # (1, C, h, w)
    resized = F.interpolate(planes, size=(side, side), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).to(grid.dtype)


def _resize_line(line: Tensor, length: int) -> Tensor:
    """Resizes (l, D) to (length, D)."""
    resized = F.interpolate(line.float().t()[None], size=length, mode="linear")  # (1, D, length)
    return resized[0].t().to(line.dtype)
