"""What a medical phantom shows: the facts that are drawn, written into the caption and scored.

Sides follow the radiological convention: the patient faces the reader, so the patient's LEFT is on
the image's RIGHT. ``upper``, ``middle`` and ``lower`` are the image's vertical thirds of the organ
(all sections are coronal, all radiographs frontal, so they are the patient's too).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lavis_msmedcap.phantom.seeding import chance, pick, pick_weighted

MODALITIES = ("ct", "mri", "ultrasound", "radiograph")
SIDES = ("left", "right")
POSITIONS = ("upper", "middle", "lower")
SMALL_MM = (8, 10, 12, 15)
LARGE_MM = (20, 25, 30, 35)
SHAPES = ("round", "oval", "lobulated", "spiculated")
SEQUENCES = ("t1", "t2")

_MODALITY_WEIGHTS = (("ct", 0.34), ("mri", 0.24), ("ultrasound", 0.21), ("radiograph", 0.21))
_SHAPE_WEIGHTS = (("round", 0.34), ("oval", 0.26), ("lobulated", 0.2), ("spiculated", 0.2))
_LESION_RATE = 0.85
_ARROW_RATE = 0.25
_RIM_RATE = 0.25
_SMALLEST_WITH_OUTLINE_MM = 12


@dataclass(frozen=True)
class Organ:
    """An imaged organ and the places in it where a lesion may lie.

    Attributes:
        name: The word of the captions ("chest").
        region: The word after side and position ("lung": "left upper lung").
        across: Range of ``|u|`` of the lesion's centre.
        bands: Range of ``v`` of the lesion's centre for upper, middle and lower.
        largest_mm: Largest lesion that fits.
    """

    name: str
    region: str
    across: tuple[float, float]
    bands: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    largest_mm: int = 35


ORGANS: dict[str, tuple[Organ, ...]] = {
    "ct": (
        Organ("brain", "hemisphere", (0.28, 0.36), ((-0.48, -0.38), (-0.06, 0.06), (0.36, 0.46))),
        Organ("chest", "lung", (0.42, 0.52), ((-0.46, -0.36), (-0.06, 0.06), (0.36, 0.46))),
        Organ("abdomen", "quadrant", (0.36, 0.48), ((-0.52, -0.42), (-0.04, 0.08), (0.42, 0.52))),
    ),
    "mri": (
        Organ("brain", "hemisphere", (0.28, 0.36), ((-0.48, -0.38), (-0.06, 0.06), (0.36, 0.46))),
        Organ("knee", "compartment", (0.28, 0.38), ((-0.52, -0.42), (-0.04, 0.04), (0.44, 0.54))),
    ),
    "ultrasound": (
        Organ("liver", "lobe", (0.3, 0.4), ((-0.42, -0.34), (0.0, 0.1), (0.44, 0.52))),
        Organ("kidney", "pole", (0.32, 0.4), ((-0.3, -0.24), (0.06, 0.12), (0.4, 0.46)), 25),
        Organ("thyroid", "lobe", (0.32, 0.4), ((-0.34, -0.26), (0.04, 0.1), (0.4, 0.46)), 25),
    ),
    "radiograph": (
        Organ("chest", "lung", (0.42, 0.52), ((-0.42, -0.34), (-0.06, 0.04), (0.3, 0.38))),
        Organ("pelvis", "hemipelvis", (0.44, 0.54), ((-0.5, -0.38), (0.0, 0.12), (0.46, 0.56))),
    ),
}

DARK_WORD = {
    "ct": "hypodense",
    "mri": "hypointense",
    "ultrasound": "hypoechoic",
    "radiograph": "lucency",
}
BRIGHT_WORD = {
    "ct": "hyperdense",
    "mri": "hyperintense",
    "ultrasound": "hyperechoic",
    "radiograph": "opacity",
}


@dataclass(frozen=True)
class Lesion:
    """One focal lesion.

    Attributes:
        side: ``left`` or ``right``, of the patient.
        position: ``upper``, ``middle`` or ``lower``.
        size_mm: Longest diameter; one of `SMALL_MM` and `LARGE_MM`.
        shape: One of `SHAPES`.
        bright: Brighter than its surroundings, else darker.
        rim: With a calcified rim (large dark lesions, not in MRI).
        arrow: An arrow is drawn on the image.
    """

    side: str
    position: str
    size_mm: int
    shape: str
    bright: bool
    rim: bool
    arrow: bool

    @property
    def size(self) -> str:
        """``small`` (up to 15 mm) or ``large``."""
        return "small" if self.size_mm <= SMALL_MM[-1] else "large"


@dataclass(frozen=True)
class MedicalFacts:
    """Everything that one medical phantom shows.

    Attributes:
        modality: One of `MODALITIES`.
        organ: The imaged organ.
        sequence: ``t1`` or ``t2`` for MRI, else None.
        lesion: The lesion; None for a normal image.
    """

    modality: str
    organ: Organ
    sequence: str | None
    lesion: Lesion | None

    @property
    def contrast(self) -> str | None:
        """The modality's word for the lesion's contrast; None for a normal image."""
        if self.lesion is None:
            return None
        return (BRIGHT_WORD if self.lesion.bright else DARK_WORD)[self.modality]

    def as_dict(self) -> dict[str, object]:
        """Returns the facts as they stand in ``facts.jsonl``; None where a fact does not apply."""
        lesion = self.lesion
        return {
            "modality": self.modality,
            "organ": self.organ.name,
            "sequence": self.sequence,
            "lesion": lesion is not None,
            "side": lesion.side if lesion else None,
            "position": lesion.position if lesion else None,
            "size": lesion.size if lesion else None,
            "size_mm": lesion.size_mm if lesion else None,
            "shape": lesion.shape if lesion else None,
            "contrast": self.contrast,
            "rim": lesion.rim if lesion else None,
            "arrow": lesion.arrow if lesion else None,
        }


def sample_facts(rng: np.random.Generator) -> MedicalFacts:
    """Draws the facts of one phantom."""
    modality = pick_weighted(rng, _MODALITY_WEIGHTS)
    organ = pick(rng, ORGANS[modality])
    sequence = pick(rng, SEQUENCES) if modality == "mri" else None
    lesion = _sample_lesion(rng, modality, organ) if chance(rng, _LESION_RATE) else None
    return MedicalFacts(modality, organ, sequence, lesion)


def _sample_lesion(rng: np.random.Generator, modality: str, organ: Organ) -> Lesion:
    large = tuple(size for size in LARGE_MM if size <= organ.largest_mm)
    size_mm = pick(rng, pick(rng, (SMALL_MM, large)))
    shape = pick_weighted(rng, _SHAPE_WEIGHTS)
    if size_mm < _SMALLEST_WITH_OUTLINE_MM and shape not in ("round", "oval"):
        shape = "round"  # an outline finer than a pixel cannot be seen, so it is not claimed
    bright = chance(rng, 0.5)
    can_have_rim = not bright and modality != "mri" and size_mm >= LARGE_MM[0]
    return Lesion(
        side=pick(rng, SIDES),
        position=pick(rng, POSITIONS),
        size_mm=size_mm,
        shape=shape,
        bright=bright,
        rim=can_have_rim and chance(rng, _RIM_RATE),
        arrow=chance(rng, _ARROW_RATE),
    )
