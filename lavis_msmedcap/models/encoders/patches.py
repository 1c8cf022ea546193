"""How an image is cut into patches."""

from __future__ import annotations


def require_whole_patches(image_size: int, patch_size: int) -> None:
    """Refuses a view that patches do not fill: its rest would never be seen.

    Args:
        image_size: Side of the view in pixels.
        patch_size: Side of a patch in pixels.

    Raises:
        ValueError: Naming both sides and the nearest ones that fit.
    """
    rest = image_size % patch_size
    if rest:
        smaller = image_size - rest
        near = " or ".join(str(side) for side in (smaller, smaller + patch_size) if side)
        raise ValueError(
            f"image_size is {image_size}, which patch_size ({patch_size}) does not divide; "
            f"choose {near}"
        )
