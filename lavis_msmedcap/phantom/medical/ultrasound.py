"""Ultrasound phantoms: a fan-shaped sector on black, speckle, depth loss, acoustic shadows."""

from __future__ import annotations

import numpy as np

from lavis_msmedcap.phantom.canvas import Array, Canvas, smooth_noise
from lavis_msmedcap.phantom.medical.facts import Lesion
from lavis_msmedcap.phantom.medical.lesions import PlacedLesion

_APEX_V = -1.75
_NEAR, _FAR = 0.82, 2.68
_HALF_ANGLE = 0.56
_SPECKLE_CELL = 1.9


def draw_ultrasound(canvas: Canvas, organ: str, rng: np.random.Generator) -> None:
    """Paints the echogenicity of an organ, before the beam's own effects.

    Args:
        canvas: An empty canvas.
        organ: ``liver``, ``kidney`` or ``thyroid``.
        rng: Source of randomness.
    """
    canvas.pixels += np.float32(0.4)
    {"liver": _liver, "kidney": _kidney, "thyroid": _thyroid}[organ](canvas, rng)


def finish_ultrasound(
    canvas: Canvas, placed: PlacedLesion | None, lesion: Lesion | None, rng: np.random.Generator
) -> None:
    """Applies the lesion's shadow or enhancement, speckle, depth loss and the sector's border."""
    depth_v = canvas.v - np.float32(_APEX_V)
    radius = np.sqrt(canvas.u * canvas.u + depth_v * depth_v)
    angle = np.arctan2(canvas.u, depth_v)
    pixels = canvas.pixels
    if placed is not None and lesion is not None:
        pixels = pixels * _beam_behind(placed, lesion, radius, angle)
    shape = (canvas.height, canvas.width)
    real = smooth_noise(rng, *shape, _SPECKLE_CELL)
    imaginary = smooth_noise(rng, *shape, _SPECKLE_CELL)
    magnitude = np.sqrt(real * real + imaginary * imaginary)  # Rayleigh, mean about 1.1
    gain = np.float32(1.12) - np.float32(0.16) * (radius - np.float32(_NEAR))
    pixels = pixels * (np.float32(0.58) + np.float32(0.4) * magnitude) * gain
    inside = canvas.soft(np.minimum(radius - np.float32(_NEAR), np.float32(_FAR) - radius))
    inside *= canvas.soft((np.float32(_HALF_ANGLE) - np.abs(angle)) * radius)
    canvas.pixels = pixels * inside


def _beam_behind(placed: PlacedLesion, lesion: Lesion, radius: Array, angle: Array) -> Array:
    """Returns the factor on echoes from behind the lesion: calcium shadows, fluid enhances."""
    row = min(max(int(placed.row), 0), radius.shape[0] - 1)
    column = min(max(int(placed.column), 0), radius.shape[1] - 1)
    inside = placed.coverage > 0.5
    if not inside.any():
        return np.ones_like(radius)
    half = np.float32(np.ptp(angle[inside]) / 2.0 * 0.9)
    wedge = np.clip((half - np.abs(angle - angle[row, column])) * 40.0, 0.0, 1.0)
    behind = np.clip((radius - radius[row, column]) * 12.0 - 2.0, 0.0, 1.0)
    strength = 0.0
    if lesion.rim:
        strength = -0.6
    elif not lesion.bright:
        strength = 0.22
    effect = np.float32(strength) * wedge * behind * (1.0 - placed.coverage)
    return np.float32(1.0) + effect


def _liver(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.pixels += np.float32(0.04) * smooth_noise(rng, canvas.height, canvas.width, 12.0)
    canvas.paint(0.6, canvas.soft(np.float32(-0.72) - canvas.v, 3.0))
    for _ in range(3):
        start = (float(rng.uniform(-0.15, 0.15)), float(rng.uniform(-0.5, 0.7)))
        end = (start[0] + float(rng.uniform(-0.15, 0.15)), start[1] + float(rng.uniform(-0.2, 0.2)))
        tube = canvas.stroke(start, end, 0.05)
        canvas.paint(0.16, tube)
    depth_v = canvas.v - np.float32(_APEX_V)
    radius = np.sqrt(canvas.u * canvas.u + depth_v * depth_v)
    canvas.paint(0.95, canvas.soft(np.float32(0.02) - np.abs(radius - np.float32(2.5))))


def _kidney(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.paint(0.52, canvas.soft(np.float32(-0.6) - canvas.v, 3.0))
    centre = (0.0, 0.08)
    canvas.paint(0.72, canvas.ellipse(centre, (0.66, 0.66), power=2.2))
    canvas.paint(0.36, canvas.ellipse(centre, (0.63, 0.63), power=2.2))
    ripple = np.float32(0.018) * smooth_noise(rng, canvas.height, canvas.width, 12.0)
    du, dv = canvas.u / np.float32(0.16), (canvas.v - np.float32(0.08)) / np.float32(0.4)
    sinus = (np.float32(1.0) - np.sqrt(du * du + dv * dv)) * np.float32(0.16) + ripple
    canvas.paint(0.74, canvas.soft(sinus, 2.0))


def _thyroid(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.paint(0.28, canvas.soft(np.float32(-0.62) - canvas.v, 2.0))
    stripes = np.clip(np.sin(canvas.v * np.float32(40.0)), 0.0, 1.0)
    canvas.paint(0.42, stripes * canvas.soft(np.float32(-0.62) - canvas.v, 2.0))
    tilt = float(rng.uniform(0.0, 0.08))
    for side in (-1.0, 1.0):
        canvas.paint(0.7, canvas.ellipse((side * 0.36, 0.06), (0.3, 0.62), angle=side * -tilt))
        canvas.paint(0.5, canvas.ellipse((side * 0.36, 0.06), (0.27, 0.59), angle=side * -tilt))
        canvas.paint(0.05, canvas.ellipse((side * 0.78, 0.3), (0.11, 0.13)))
    canvas.paint(0.05, canvas.ellipse((0.0, 0.12), (0.1, 0.26)))
    ring = canvas.ellipse((0.0, 0.12), (0.12, 0.28)) - canvas.ellipse((0.0, 0.12), (0.09, 0.25))
    canvas.paint(0.95, ring * canvas.soft(np.float32(0.0) - canvas.v, 6.0))
