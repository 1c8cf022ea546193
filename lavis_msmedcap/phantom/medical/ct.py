"""CT phantoms: black air, grey soft tissue, white bone, sharp edges, little Gaussian noise."""

from __future__ import annotations

import numpy as np

from lavis_msmedcap.phantom.canvas import Canvas, blur, gaussian_noise, smooth_noise

_AIR = 0.02
_BONE = 0.97
_NOISE = 0.022


def draw_ct(canvas: Canvas, organ: str, rng: np.random.Generator) -> None:
    """Paints the anatomy of a coronal CT section.

    Args:
        canvas: An empty canvas.
        organ: ``brain``, ``chest`` or ``abdomen``.
        rng: Source of randomness.
    """
    canvas.pixels += np.float32(_AIR)
    {"brain": _brain, "chest": _chest, "abdomen": _abdomen}[organ](canvas, rng)


def finish_ct(canvas: Canvas, rng: np.random.Generator) -> None:
    """Adds the scanner's point spread and noise."""
    canvas.pixels = blur(canvas.pixels)
    canvas.pixels += np.float32(_NOISE) * gaussian_noise(rng, canvas.height, canvas.width)


def _brain(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.paint(0.36, canvas.ellipse((0.0, 0.0), (0.84, 0.94)))
    canvas.paint(_BONE, canvas.ellipse((0.0, 0.0), (0.79, 0.89)))
    inner = canvas.ellipse((0.0, 0.0), (0.7, 0.8))
    folds = smooth_noise(rng, canvas.height, canvas.width, 7.0)
    canvas.paint(np.float32(0.46) + np.float32(0.025) * folds, inner)
    canvas.paint(0.58, canvas.stroke((0.0, -0.78), (0.0, -0.2), 0.02))
    spread = float(rng.uniform(0.09, 0.13))
    for side in (-1.0, 1.0):
        horn = canvas.ellipse((side * spread, -0.08), (0.055, 0.2), angle=side * 0.35)
        canvas.paint(0.2, horn)
    canvas.paint(0.22, canvas.ellipse((0.0, 0.2), (0.02, 0.09)))


def _chest(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.paint(0.42, canvas.ellipse((0.0, 0.08), (0.96, 1.0), power=3.2))
    canvas.paint(0.58, canvas.ellipse((0.0, 0.08), (0.88, 0.96), power=3.0))
    vessels = np.maximum(smooth_noise(rng, canvas.height, canvas.width, 4.0), 0.6)
    for side in (-1.0, 1.0):
        lung = canvas.ellipse((side * 0.46, 0.02), (0.35, 0.74), angle=side * -0.08, power=2.4)
        ribs = canvas.ellipse((side * 0.46, 0.02), (0.42, 0.81), angle=side * -0.08, power=2.4)
        lateral = np.clip((side * canvas.u - np.float32(0.5)) * 12.0, 0.0, 1.0)
        cuts = np.clip(np.sin(canvas.v * np.float32(20.0)) * 4.0 - 0.5, 0.0, 1.0)
        canvas.paint(_BONE, ribs * (1.0 - lung) * lateral * cuts)
        canvas.paint(np.float32(0.26) + np.float32(0.08) * vessels, lung)
    canvas.paint(0.62, canvas.ellipse((0.0, 0.05), (0.14, 0.9), power=3.0))
    canvas.paint(0.68, canvas.ellipse((0.1, float(rng.uniform(0.24, 0.3))), (0.25, 0.26), 0.5))
    canvas.paint(0.06, canvas.stroke((0.0, -0.9), (0.0, -0.3), 0.07))
    canvas.paint(0.06, canvas.stroke((0.0, -0.3), (-0.16, -0.12), 0.05))
    canvas.paint(0.06, canvas.stroke((0.0, -0.3), (0.16, -0.12), 0.05))


def _abdomen(canvas: Canvas, rng: np.random.Generator) -> None:
    canvas.paint(0.26, canvas.ellipse((0.0, 0.0), (0.95, 1.02), power=3.4))
    canvas.paint(0.5, canvas.ellipse((0.0, 0.0), (0.86, 0.98), power=3.2))
    bowel = smooth_noise(rng, canvas.height, canvas.width, 9.0)
    canvas.paint(
        np.float32(0.44) + np.float32(0.05) * bowel, canvas.ellipse((0.0, 0.42), (0.74, 0.5))
    )
    canvas.paint(0.6, canvas.ellipse((-0.42, -0.48), (0.4, 0.4), angle=0.25))
    canvas.paint(0.58, canvas.ellipse((0.6, -0.5), (0.2, 0.3), angle=-0.2))
    canvas.paint(0.42, canvas.ellipse((0.24, -0.56), (0.18, 0.2), angle=0.3))
    for side in (-1.0, 1.0):
        canvas.paint(0.68, canvas.ellipse((side * 0.34, 0.06), (0.12, 0.22), angle=side * -0.2))
        canvas.paint(_BONE, canvas.ellipse((side * 0.76, 0.86), (0.16, 0.24), angle=side * 0.5))
    discs = np.clip(np.cos(canvas.v * np.float32(16.0)) * 5.0 + 4.2, 0.0, 1.0)
    column = canvas.soft(np.float32(0.11) - np.abs(canvas.u))
    canvas.paint(_BONE, column * discs * canvas.soft(np.float32(0.96) - np.abs(canvas.v)))
