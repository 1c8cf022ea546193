"""The views that the encoders are given, of packed images or of an image of BLIP-2's processors.

Dimensions: B batch; n bytes of a packed image; H, W pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from lavis_msmedcap.imaging.authors_view import authors_sam_view
from lavis_msmedcap.imaging.views import (
    normalize_clip,
    normalize_sam,
    unpack_views,
    views_from_clip_normalized,
)

# a normalised view (B, 3, H, W), and the size (B, 2) of each image inside it
SizedView = tuple[Tensor, Tensor]


def views_of_packed(
    image: Tensor, names: Collection[str], as_authors: bool
) -> dict[str, SizedView]:
    """Unpacks and normalises the views that our processors made.

    Args:
        image: uint8 (B, n).
        names: Branches that need theirs.
        as_authors: SAM's is made of CLIP's as the authors' code makes it, see `SamEncoder`.

    Returns:
        Views by branch.

    Raises:
        DataError: If they are no packed views.
    """
    packed = unpack_views(image)
    views = {}
    if "clip" in names:
        views["clip"] = (normalize_clip(packed.clip), packed.valid_sizes)
    if "sam" in names and as_authors:
        # normalised on the CPU: a GPU divides with another last bit, which the wrap would show
        clip = normalize_clip(packed.clip.cpu())
        sam, valid_sizes = authors_sam_view(clip, packed.sam.shape[-1])
        views["sam"] = (sam.to(image.device), valid_sizes.to(image.device))
    elif "sam" in names:
        views["sam"] = (normalize_sam(packed.sam, packed.valid_sizes), packed.valid_sizes)
    return views


def views_of_blip2_image(
    image: Tensor, sizes: Mapping[str, int], as_authors: bool
) -> dict[str, SizedView]:
    """Makes the views of an image that BLIP-2's processors have normalised.

    Args:
        image: float (B, 3, H, W), normalised with CLIP's mean and standard deviation.
        sizes: Side of the view by branch.
        as_authors: SAM's is made as the authors' code makes it, see `SamEncoder`.

    Returns:
        Views by branch, for the branches of ``sizes``.
    """
    clip, sam, valid_sizes = views_from_clip_normalized(
        image, sizes.get("clip", image.shape[-1]), sizes.get("sam", image.shape[-1])
    )
    by_name = {"clip": (clip, valid_sizes), "sam": (sam, valid_sizes)}
    if as_authors:
        by_name["sam"] = authors_sam_view(image, sizes["sam"])
    return {name: by_name[name] for name in sizes}
