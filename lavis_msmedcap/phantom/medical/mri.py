"""MRI phantoms: T1 and T2 contrast, a receive-coil bias field and Rician noise."""

from __future__ import annotations

import numpy as np

from lavis_msmedcap.phantom.canvas import Canvas, blur, gaussian_noise, smooth_noise

_NOISE = 0.03
_BIAS = 0.16

# signal of each tissue; the two sequences swap water (fluid) and myelin or fat (white matter)
_SIGNAL = {
    "t1": {
        "scalp": 0.9,
        "skull": 0.06,
        "fluid": 0.1,
        "grey": 0.46,
        "white": 0.62,
        "fat": 0.8,
        "muscle": 0.38,
        "marrow": 0.6,
        "cartilage": 0.5,
    },
    "t2": {
        "scalp": 0.5,
        "skull": 0.04,
        "fluid": 0.97,
        "grey": 0.58,
        "white": 0.42,
        "fat": 0.24,
        "muscle": 0.2,
        "marrow": 0.4,
        "cartilage": 0.66,
    },
}


def draw_mri(canvas: Canvas, organ: str, sequence: str, rng: np.random.Generator) -> None:
    """Paints the anatomy of a coronal MRI section.

    Args:
        canvas: An empty canvas.
        organ: ``brain`` or ``knee``.
        sequence: ``t1`` or ``t2``.
        rng: Source of randomness.
    """
    signal = _SIGNAL[sequence]
    if organ == "brain":
        _brain(canvas, signal, rng)
    else:
        _knee(canvas, signal, rng)


def finish_mri(canvas: Canvas, rng: np.random.Generator) -> None:
    """Applies the coil's bias field and the Rician noise of a magnitude image."""
    slope_u, slope_v = rng.uniform(-_BIAS, _BIAS, size=2)
    field = 1.0 + np.float32(slope_u) * canvas.u + np.float32(slope_v) * canvas.v
    pixels = blur(np.clip(canvas.pixels, 0.0, 1.0)) * field
    real = pixels + np.float32(_NOISE) * gaussian_noise(rng, canvas.height, canvas.width)
    imaginary = np.float32(_NOISE) * gaussian_noise(rng, canvas.height, canvas.width)
    canvas.pixels = np.sqrt(real * real + imaginary * imaginary)


def _brain(canvas: Canvas, signal: dict[str, float], rng: np.random.Generator) -> None:
    canvas.paint(signal["scalp"], canvas.ellipse((0.0, 0.0), (0.86, 0.95)))
    canvas.paint(signal["skull"], canvas.ellipse((0.0, 0.0), (0.8, 0.89)))
    canvas.paint(signal["fluid"], canvas.ellipse((0.0, 0.0), (0.74, 0.83)))
    canvas.paint(signal["grey"], canvas.ellipse((0.0, 0.0), (0.71, 0.8)))
    folds = np.float32(0.035) * smooth_noise(rng, canvas.height, canvas.width, 7.0)
    ripple = np.float32(0.03) * np.sin(np.arctan2(canvas.v, canvas.u) * np.float32(22.0))
    radius = np.sqrt((canvas.u / np.float32(0.62)) ** 2 + (canvas.v / np.float32(0.7)) ** 2)
    canvas.paint(signal["white"], canvas.soft((1.0 - radius + folds + ripple) * 0.62, 1.5))
    canvas.paint(signal["fluid"], canvas.stroke((0.0, -0.8), (0.0, -0.22), 0.02))
    spread = float(rng.uniform(0.09, 0.13))
    for side in (-1.0, 1.0):
        horn = canvas.ellipse((side * spread, -0.08), (0.055, 0.19), angle=side * 0.35)
        canvas.paint(signal["fluid"], horn)
        nucleus = canvas.ellipse((side * 0.24, 0.1), (0.08, 0.13), angle=side * 0.3)
        canvas.paint(signal["grey"], nucleus)
    canvas.paint(signal["fluid"], canvas.ellipse((0.0, 0.2), (0.02, 0.1)))


def _knee(canvas: Canvas, signal: dict[str, float], rng: np.random.Generator) -> None:
    canvas.paint(signal["fat"], canvas.ellipse((0.0, 0.0), (0.9, 1.15), power=4.0))
    canvas.paint(signal["muscle"], canvas.ellipse((0.0, 0.0), (0.8, 1.15), power=4.0))
    texture = np.float32(0.02) * smooth_noise(rng, canvas.height, canvas.width, 5.0)
    marrow = np.float32(signal["marrow"]) + texture
    gap = float(rng.uniform(0.06, 0.08))
    femur = np.maximum(
        canvas.ellipse((0.0, -0.9), (0.34, 0.62), power=3.0),
        np.maximum(
            canvas.ellipse((-0.32, -0.4), (0.33, 0.4 - gap)),
            canvas.ellipse((0.32, -0.4), (0.33, 0.4 - gap)),
        ),
    )
    tibia = np.maximum(
        canvas.ellipse((0.0, 0.4), (0.62, 0.4 - gap), power=3.0),
        canvas.ellipse((0.0, 0.9), (0.36, 0.6), power=3.0),
    )
    canvas.paint(signal["cartilage"], canvas.ellipse((0.0, -0.02), (0.62, 0.14), power=4.0))
    for side in (-1.0, 1.0):
        canvas.paint(signal["skull"], canvas.ellipse((side * 0.6, 0.0), (0.12, 0.05)))
    for bone in (femur, tibia):
        canvas.paint(marrow, bone)
        shell = np.clip(bone * (1.0 - bone) * 4.0, 0.0, 1.0)
        canvas.paint(signal["skull"], shell)
    canvas.paint(signal["fluid"], canvas.ellipse((0.0, -0.05), (0.05, 0.12)))
