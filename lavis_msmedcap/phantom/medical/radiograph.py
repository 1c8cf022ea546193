"""Radiograph phantoms: projections, where the attenuation of overlying structures adds up."""

from __future__ import annotations

import numpy as np

from lavis_msmedcap.phantom.canvas import Canvas, blur, gaussian_noise, smooth_noise

_NOISE = 0.012
_BONE_LIMIT = 0.7


def draw_radiograph(canvas: Canvas, organ: str, rng: np.random.Generator) -> None:
    """Paints a frontal projection.

    Args:
        canvas: An empty canvas.
        organ: ``chest`` or ``pelvis``.
        rng: Source of randomness.
    """
    canvas.pixels += np.float32(0.04)
    {"chest": _chest, "pelvis": _pelvis}[organ](canvas, rng)


def finish_radiograph(canvas: Canvas, rng: np.random.Generator) -> None:
    """Adds the detector's blur and its faint noise."""
    canvas.pixels = blur(blur(canvas.pixels))
    canvas.pixels += np.float32(_NOISE) * gaussian_noise(rng, canvas.height, canvas.width)


def _chest(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.add(0.46, canvas.ellipse((0.0, 0.25), (0.98, 1.15), power=3.0, width=4.0))
    canvas.add(0.3, canvas.ellipse((0.0, -1.0), (0.3, 0.5), width=4.0))
    tilt = float(rng.uniform(0.04, 0.1))
    lungs = np.zeros_like(canvas.pixels)
    for side in (-1.0, 1.0):
        lung = canvas.ellipse(
            (side * 0.46, -0.06), (0.36, 0.68), angle=side * -tilt, power=2.5, width=5.0
        )
        dome = canvas.ellipse((side * 0.46, 0.95), (0.5, 0.45), width=4.0)
        lung = lung * (1.0 - dome)
        canvas.add(0.26, dome)
        lungs = np.maximum(lungs, lung)
    canvas.add(-0.24, lungs)
    canvas.add(0.016, smooth_noise(rng, canvas.height, canvas.width, 6.0) * lungs)
    arcs = canvas.v * np.float32(24.0) - canvas.u * canvas.u * np.float32(10.0)
    ribs = np.clip(np.cos(arcs + np.float32(rng.uniform(0.0, 6.0))) * 2.0 - 0.9, 0.0, 1.0)
    canvas.add(0.09, ribs * canvas.soft(np.float32(0.86) - np.abs(canvas.u), 4.0))
    canvas.add(0.2, canvas.soft(np.float32(0.15) - np.abs(canvas.u), 5.0))
    canvas.add(0.2, canvas.ellipse((0.14, 0.34), (0.3, 0.28), angle=0.4, width=6.0))
    for side in (-1.0, 1.0):
        canvas.add(0.16, canvas.stroke((side * 0.06, -0.66), (side * 0.8, -0.78), 0.06))


def _pelvis(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.add(0.26, canvas.ellipse((0.0, 0.0), (1.0, 1.2), power=3.0, width=5.0))
    canvas.add(0.02, smooth_noise(rng, canvas.height, canvas.width, 9.0))
    tilt = float(rng.uniform(0.3, 0.45))
    bone = 0.33
    for side in (-1.0, 1.0):
        wing = canvas.ellipse((side * 0.5, -0.36), (0.34, 0.42), angle=side * tilt, width=2.0)
        core = canvas.ellipse((side * 0.5, -0.36), (0.28, 0.36), angle=side * tilt, width=4.0)
        canvas.add(bone, wing)
        canvas.add(-0.07, core)
        canvas.add(bone, canvas.ellipse((side * 0.58, 0.12), (0.19, 0.2), width=2.0))
        canvas.add(bone, canvas.stroke((side * 0.6, 0.16), (side * 0.78, 0.4), 0.16))
        canvas.add(bone * 0.9, canvas.stroke((side * 0.78, 0.4), (side * 0.74, 1.0), 0.17))
        outer = canvas.ellipse((side * 0.27, 0.5), (0.25, 0.23), angle=side * -0.4)
        hole = canvas.ellipse((side * 0.27, 0.5), (0.15, 0.12), angle=side * -0.4)
        canvas.add(bone, outer * (1.0 - hole))
    canvas.add(0.3, canvas.ellipse((0.0, -0.35), (0.2, 0.4), width=3.0))
    spine = canvas.soft(np.float32(0.14) - np.abs(canvas.u), 2.0)
    canvas.add(0.25, spine * canvas.soft(np.float32(-0.6) - canvas.v, 3.0))
    # overlapping bones saturate as film does, which leaves room for a denser lesion in bone
    canvas.pixels = np.float32(_BONE_LIMIT) * np.tanh(canvas.pixels / np.float32(_BONE_LIMIT))
