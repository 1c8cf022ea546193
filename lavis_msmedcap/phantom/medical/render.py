"""From facts to pixels: the anatomy of the modality, the lesion in it, the marks upon it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lavis_msmedcap.phantom.canvas import Canvas, stamp_letter
from lavis_msmedcap.phantom.medical.ct import draw_ct, finish_ct
from lavis_msmedcap.phantom.medical.facts import MedicalFacts
from lavis_msmedcap.phantom.medical.lesions import (
    PlacedLesion,
    draw_arrow,
    paint_lesion,
    place_lesion,
)
from lavis_msmedcap.phantom.medical.mri import draw_mri, finish_mri
from lavis_msmedcap.phantom.medical.radiograph import draw_radiograph, finish_radiograph
from lavis_msmedcap.phantom.medical.ultrasound import draw_ultrasound, finish_ultrasound
from lavis_msmedcap.phantom.seeding import chance, pick

_SIDES_PIXELS = (120, 128, 136, 144, 152, 160, 176, 192, 200)
_WIDEST = 4.0 / 3.0
_MARGIN_PIXELS = 5
_SPECKLE_MARGIN = 0.22


@dataclass(frozen=True)
class MedicalImage:
    """A drawn phantom.

    Attributes:
        pixels: (height, width) uint8.
        mask: (height, width) uint8, 255 in the lesion and 0 elsewhere; None without a lesion.
    """

    pixels: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None


def image_size(rng: np.random.Generator) -> tuple[int, int]:
    """Draws (height, width) in pixels: 120 to 200 each, between 3:4 and 4:3."""
    height = pick(rng, _SIDES_PIXELS)
    allowed = [w for w in _SIDES_PIXELS if max(w / height, height / w) <= _WIDEST]
    return height, pick(rng, allowed)


def render(facts: MedicalFacts, rng: np.random.Generator, panel: str | None = None) -> MedicalImage:
    """Draws one phantom.

    Args:
        facts: What to show.
        rng: Source of all variation that the facts do not settle.
        panel: Capital letter of a figure panel to stamp into the lower left corner, or None.
    """
    height, width = image_size(rng)
    canvas = Canvas(height, width, rng)
    _draw_anatomy(canvas, facts, rng)
    placed = None
    if facts.lesion is not None:
        placed = place_lesion(canvas, facts.lesion, facts.organ, rng)
        extra = _SPECKLE_MARGIN if facts.modality == "ultrasound" else 0.0
        paint_lesion(canvas, placed, facts.lesion, rng, extra)
    _finish(canvas, facts, placed, rng)
    pixels = canvas.to_uint8()
    if facts.modality == "radiograph" and chance(rng, 0.6):
        # the marker names the patient's side, so "L" stands on the image's right
        stamp_letter(pixels, "L", _MARGIN_PIXELS, width - _MARGIN_PIXELS - 10)
    if panel is not None:
        stamp_letter(pixels, panel, height - _MARGIN_PIXELS - 14, _MARGIN_PIXELS)
    mask = None
    if facts.lesion is not None and placed is not None:
        mask = (placed.coverage > 0.5).astype(np.uint8) * np.uint8(255)
        if facts.lesion.arrow:
            pixels = draw_arrow(pixels, placed, rng)
    return MedicalImage(pixels, mask)


def _draw_anatomy(canvas: Canvas, facts: MedicalFacts, rng: np.random.Generator) -> None:
    organ = facts.organ.name
    if facts.modality == "mri" and facts.sequence is not None:
        draw_mri(canvas, organ, facts.sequence, rng)
    elif facts.modality == "ultrasound":
        draw_ultrasound(canvas, organ, rng)
    elif facts.modality == "radiograph":
        draw_radiograph(canvas, organ, rng)
    else:
        draw_ct(canvas, organ, rng)


def _finish(
    canvas: Canvas, facts: MedicalFacts, placed: PlacedLesion | None, rng: np.random.Generator
) -> None:
    if facts.modality == "mri":
        finish_mri(canvas, rng)
    elif facts.modality == "ultrasound":
        finish_ultrasound(canvas, placed, facts.lesion, rng)
    elif facts.modality == "radiograph":
        finish_radiograph(canvas, rng)
    else:
        finish_ct(canvas, rng)
