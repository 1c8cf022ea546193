"""How large a picture may be, asked before it is decoded.

A few kilobytes can announce a picture of gigabytes. Pillow's own limit is a switch of the whole
process and may be off; this one is an argument.
"""

from __future__ import annotations

MAX_PIXELS = 80_000_000  # 240 MB as RGB, and below where Pillow starts to warn
# from here on Pillow refuses by itself
PILLOW_MAX_PIXELS = 178_956_970
# an ECG strip is 10 times longer than high; what is beyond this has one side without detail
MAX_ASPECT = 100


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuses what is too large, too thin or empty.

    Args:
        width: Pixels of a row.
        height: Number of rows.
        max_pixels: Largest accepted product of both.

    Raises:
        ValueError: With the reason and the cure.
    """
    if width < 1 or height < 1:
        raise ValueError(f"the picture has {width} x {height} pixels; expected at least one")
    if width * height > max_pixels:
        raise ValueError(
            f"{width} x {height} pixels are more than {max_pixels} (a decompression bomb, or a "
            "scan to be shrunk first); if the size is meant, raise max_pixels of the vis_processor"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other; "
            "expected a picture, cut it to the part that matters"
        )
