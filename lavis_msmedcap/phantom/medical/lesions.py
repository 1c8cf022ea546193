"""Lesions: where they lie, how their outline runs, and how they stand out from what is around."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from lavis_msmedcap.phantom.canvas import Array, Canvas
from lavis_msmedcap.phantom.medical.facts import POSITIONS, Lesion, Organ

_RIM_WIDTH_PIXELS = 1.3


@dataclass(frozen=True)
class PlacedLesion:
    """A lesion's geometry on one canvas.

    Attributes:
        coverage: (height, width) float32, 1 inside, anti-aliased at the outline.
        rim: (height, width) float32 coverage of a thin ring along the outline.
        column: Column of the centre in pixels.
        row: Row of the centre in pixels.
        radius: Largest distance of the outline from the centre, in pixels.
    """

    coverage: Array
    rim: Array
    column: float
    row: float
    radius: float


def place_lesion(
    canvas: Canvas, lesion: Lesion, organ: Organ, rng: np.random.Generator
) -> PlacedLesion:
    """Draws the centre and the outline of ``lesion`` within the organ's field."""
    u = float(rng.uniform(*organ.across))
    v = float(rng.uniform(*organ.bands[POSITIONS.index(lesion.position)]))
    # radiological convention: the patient's left is on the image's right (u > 0)
    column, row = canvas.to_pixel(u if lesion.side == "left" else -u, v)
    radius = canvas.millimetres(lesion.size_mm) / 2.0
    dx = np.arange(canvas.width, dtype=np.float32) + np.float32(0.5 - column)
    dy = np.arange(canvas.height, dtype=np.float32) + np.float32(0.5 - row)
    gap = np.sqrt(dx[None, :] ** 2 + dy[:, None] ** 2)
    angle = np.arctan2(dy[:, None], dx[None, :])
    outline = _outline(lesion.shape, angle, rng) * np.float32(radius)
    distance = outline - gap
    coverage = np.clip(distance + np.float32(0.5), 0.0, 1.0)
    rim = np.clip(np.float32(_RIM_WIDTH_PIXELS) - np.abs(distance), 0.0, 1.0)
    return PlacedLesion(coverage, rim, column, row, radius)


def _outline(shape: str, angle: Array, rng: np.random.Generator) -> Array:
    """Returns the outline's distance from the centre, relative to its largest, per direction."""
    phase = np.float32(rng.uniform(0.0, 2.0 * np.pi))
    draw = float(rng.random())
    turned = angle - phase
    if shape == "oval":
        ratio = np.float32(0.55 + 0.1 * draw)
        cosine, sine = np.cos(turned), np.sin(turned)
        return ratio / np.sqrt((ratio * cosine) ** 2 + sine**2)
    if shape == "lobulated":
        lobes = np.float32(3 + int(draw * 2))
        return np.float32(0.58) + np.float32(0.42) * np.abs(np.cos(turned * lobes / 2))
    if shape == "spiculated":
        spikes = np.float32(7 + int(draw * 3))
        # 2 pi apart the half-angle sine changes sign only, so the outline closes
        sharp = np.float32(1.0) - np.abs(np.sin(turned * spikes / 2))
        return np.float32(0.48) + np.float32(0.52) * sharp
    return np.ones_like(angle)


def paint_lesion(
    canvas: Canvas,
    placed: PlacedLesion,
    lesion: Lesion,
    rng: np.random.Generator,
    extra: float = 0.0,
) -> None:
    """Paints the lesion clearly brighter or darker than the organ around it.

    The value is relative to the mean under the lesion, so that the caption's contrast holds on
    bone and on air alike.

    Args:
        canvas: The anatomy so far.
        placed: Where the lesion is.
        lesion: Its contrast and rim.
        rng: Source of randomness.
        extra: Additional contrast on the 0..1 scale, for modalities with strong noise.
    """
    weight = float(placed.coverage.sum()) + 1e-6
    base = float((canvas.pixels * placed.coverage).sum()) / weight
    step = float(rng.uniform(0.38, 0.46)) + extra
    value = base + step if lesion.bright else base - step
    value = min(max(value, 0.02), 1.0)
    canvas.paint(value, placed.coverage)
    if lesion.rim:
        canvas.paint(1.0, placed.rim)


def draw_arrow(
    pixels: npt.NDArray[np.uint8], placed: PlacedLesion, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Returns a copy of ``pixels`` with a white, black-edged arrow that points at the lesion.

    Args:
        pixels: (height, width) uint8.
        placed: Where the lesion is.
        rng: Source of randomness (the arrow's direction).
    """
    height, width = pixels.shape
    length = 0.15 * min(height, width)
    start = placed.radius + 3.0
    # pointing outwards from the lesion towards the nearer corner is not always possible: of a few
    # random directions the one whose tail stays deepest inside the image is taken
    best, best_margin = 0.0, -np.inf
    for candidate in rng.uniform(0.0, 2.0 * np.pi, size=4):
        tail_x = placed.column + (start + length) * np.cos(candidate)
        tail_y = placed.row + (start + length) * np.sin(candidate)
        margin = min(tail_x, width - tail_x, tail_y, height - tail_y)
        if margin > best_margin:
            best, best_margin = float(candidate), margin
    direction = np.array([np.cos(best), np.sin(best)])
    normal = np.array([-direction[1], direction[0]])
    tip = np.array([placed.column, placed.row]) + start * direction
    neck = tip + 0.48 * length * direction
    tail = tip + length * direction
    half_head, half_shaft = 0.24 * length, 0.09 * length
    corners = [
        tip,
        neck + half_head * normal,
        neck + half_shaft * normal,
        tail + half_shaft * normal,
        tail - half_shaft * normal,
        neck - half_shaft * normal,
        neck - half_head * normal,
    ]
    image = Image.fromarray(pixels)
    points = [(float(x), float(y)) for x, y in corners]
    ImageDraw.Draw(image).polygon(points, fill=255, outline=0)
    return np.array(image)
