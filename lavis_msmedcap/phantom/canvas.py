"""A grey picture in anatomical coordinates, and the soft-edged shapes that are painted on it.

Coordinates: ``u`` runs from -1 (left image border) to 1 (right border), ``v`` from -1 (top) to 1
(bottom), both after a small random pose. Lengths that must not be stretched with the picture
(lesions, arrows) are in millimetres; the shorter image side is `FIELD_OF_VIEW_MM` long, as if a
very small body had been imaged, so that a lesion of 8 mm is still a handful of pixels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[np.float32]

FIELD_OF_VIEW_MM = 150.0

_GLYPHS = {
    "A": ("01110", "10001", "10001", "11111", "10001", "10001", "10001"),
    "B": ("11110", "10001", "10001", "11110", "10001", "10001", "11110"),
    "L": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "R": ("11110", "10001", "10001", "11110", "10100", "10010", "10001"),
}


class Canvas:
    """One grey image under construction.

    Attributes:
        height: Rows.
        width: Columns.
        pixels: (height, width) float32, 0 black to 1 white; painters may leave that range.
        u: (height, width) float32 horizontal anatomical coordinate.
        v: (height, width) float32 vertical anatomical coordinate.
        unit: Pixels per half of the shorter side.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.height = height
        self.width = width
        self.unit = min(height, width) / 2.0
        self.pixels: Array = np.zeros((height, width), np.float32)
        self._angle = float(rng.uniform(-0.07, 0.07))
        self._zoom = float(rng.uniform(0.95, 1.04))
        self._shift = rng.uniform(-0.035, 0.035, size=2)
        rows = (np.arange(height, dtype=np.float32) + 0.5) * (2.0 / height) - 1.0
        columns = (np.arange(width, dtype=np.float32) + 0.5) * (2.0 / width) - 1.0
        x = (columns - np.float32(self._shift[0]))[None, :] / np.float32(self._zoom)
        y = (rows - np.float32(self._shift[1]))[:, None] / np.float32(self._zoom)
        cosine, sine = np.float32(np.cos(self._angle)), np.float32(np.sin(self._angle))
        self.u: Array = x * cosine + y * sine
        self.v: Array = y * cosine - x * sine

    def to_pixel(self, u: float, v: float) -> tuple[float, float]:
        """Returns (column, row) of an anatomical point, in pixels from the top-left corner."""
        cosine, sine = np.cos(self._angle), np.sin(self._angle)
        x = (u * cosine - v * sine) * self._zoom + self._shift[0]
        y = (u * sine + v * cosine) * self._zoom + self._shift[1]
        return (x + 1.0) * self.width / 2.0, (y + 1.0) * self.height / 2.0

    def millimetres(self, length: float) -> float:
        """Returns a length in millimetres as pixels."""
        return length * 2.0 * self.unit / FIELD_OF_VIEW_MM

    def soft(self, distance: Array, width: float = 1.0) -> Array:
        """Turns a signed distance (positive inside, in ``u``/``v`` units) into coverage 0..1.

        Args:
            distance: (height, width) float32.
            width: Width of the edge in pixels; 1 is anti-aliasing, more is blur.
        """
        return np.clip(distance * np.float32(self.unit / width) + np.float32(0.5), 0.0, 1.0)

    def ellipse(
        self,
        centre: tuple[float, float],
        radii: tuple[float, float],
        angle: float = 0.0,
        power: float = 2.0,
        width: float = 1.0,
    ) -> Array:
        """Returns the coverage of a (super)ellipse.

        Args:
            centre: (u, v).
            radii: Half axes along u and v before the rotation.
            angle: Rotation in radians.
            power: 2 is an ellipse, larger values approach a rectangle.
            width: Edge width in pixels.
        """
        du = self.u - np.float32(centre[0])
        dv = self.v - np.float32(centre[1])
        if angle:
            cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
            du, dv = du * cosine + dv * sine, dv * cosine - du * sine
        du, dv = du / np.float32(radii[0]), dv / np.float32(radii[1])
        if power == 2.0:
            norm = np.sqrt(du * du + dv * dv)
        else:
            exponent = np.float32(power)
            norm = (np.abs(du) ** exponent + np.abs(dv) ** exponent) ** np.float32(1.0 / power)
        return self.soft((np.float32(1.0) - norm) * np.float32(min(radii)), width)

    def stroke(
        self, start: tuple[float, float], end: tuple[float, float], thickness: float
    ) -> Array:
        """Returns the coverage of a straight line with round ends, ``thickness`` in u/v units."""
        du, dv = end[0] - start[0], end[1] - start[1]
        length = max(du * du + dv * dv, 1e-9)
        along = (self.u - np.float32(start[0])) * np.float32(du / length)
        along += (self.v - np.float32(start[1])) * np.float32(dv / length)
        np.clip(along, 0.0, 1.0, out=along)
        offset_u = self.u - (np.float32(start[0]) + along * np.float32(du))
        offset_v = self.v - (np.float32(start[1]) + along * np.float32(dv))
        gap = np.sqrt(offset_u * offset_u + offset_v * offset_v)
        return self.soft(np.float32(thickness / 2.0) - gap)

    def paint(self, value: float | Array, coverage: Array) -> None:
        """Replaces what lies under ``coverage`` by ``value``."""
        self.pixels += coverage * (value - self.pixels)

    def add(self, value: float, coverage: Array) -> None:
        """Adds ``value`` where ``coverage`` is, as attenuation adds up in a projection."""
        self.pixels += coverage * np.float32(value)

    def to_uint8(self) -> npt.NDArray[np.uint8]:
        """Returns the picture as (height, width) uint8."""
        return (np.clip(self.pixels, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> Array:
    """Returns (height, width) float32 noise of unit variance at the nodes of a coarse grid.

    Args:
        rng: Source of randomness.
        height: Rows.
        width: Columns.
        cell: Distance of the grid's nodes in pixels: the size of the blotches.
    """
    rows, columns = int(height / cell) + 2, int(width / cell) + 2
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    resized = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.float32)


def gaussian_noise(rng: np.random.Generator, height: int, width: int) -> Array:
    """Returns (height, width) float32 white noise of unit variance."""
    return rng.standard_normal((height, width), dtype=np.float32)


def blur(pixels: Array) -> Array:
    """Returns ``pixels`` after one 3x3 binomial filter, borders replicated."""
    padded = np.pad(pixels, 1, mode="edge")
    rows = padded[:-2] + 2.0 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2.0 * rows[:, 1:-1] + rows[:, 2:]) * np.float32(1.0 / 16.0)


def stamp_letter(
    pixels: npt.NDArray[np.uint8], letter: str, row: int, column: int, scale: int = 2
) -> None:
    """Writes one capital letter in white with a dark frame, in place.

    Args:
        pixels: (height, width) uint8.
        letter: One of A, B, L, R.
        row: Top row of the letter; the frame begins one pixel before it.
        column: Left column of the letter.
        scale: Pixels per dot of the 5 x 7 glyph.
    """
    dots = np.array([[int(dot) for dot in line] for line in _GLYPHS[letter]], np.uint8)
    glyph = np.kron(dots, np.ones((scale, scale), np.uint8)) * np.uint8(255)
    height, width = glyph.shape
    pixels[max(row - 1, 0) : row + height + 1, max(column - 1, 0) : column + width + 1] = 0
    area = pixels[row : row + height, column : column + width]
    np.maximum(area, glyph[: area.shape[0], : area.shape[1]], out=area)
