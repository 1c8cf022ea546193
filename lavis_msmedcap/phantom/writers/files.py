"""What the writers share: image encoding, lesion masks, JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

OnImage = Callable[[], object]
Fact = dict[str, object]

_PNG_LEVEL = 1  # speckle and noise hardly compress: higher levels cost time and save little


def save_jpeg(image: Image.Image, path: Path, quality: int) -> None:
    """Writes a JPEG file."""
    image.save(path, format="JPEG", quality=quality)


def save_png(image: Image.Image, path: Path) -> None:
    """Writes a PNG file."""
    image.save(path, format="PNG", compress_level=_PNG_LEVEL)


def save_mask(
    root: Path, dataset: str, image_id: str, mask: npt.NDArray[np.uint8] | None
) -> str | None:
    """Writes a lesion mask as 8-bit PNG.

    Args:
        root: The phantom set's root.
        dataset: Name of the dataset, a folder below ``masks/``.
        image_id: Identifier of the image, the file's stem.
        mask: (height, width) uint8, 0 or 255; None where there is no lesion.

    Returns:
        The mask's path relative to ``root``, or None without a mask.
    """
    if mask is None:
        return None
    relative = f"masks/{dataset}/{image_id}.png"
    save_png(Image.fromarray(mask), root / relative)
    return relative


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes UTF-8 text with LF line ends on every platform."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")


def to_json(value: object) -> str:
    """Returns one line of JSON."""
    return json.dumps(value, ensure_ascii=False)
