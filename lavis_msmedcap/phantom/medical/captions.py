"""Report-style captions for medical phantoms, with a little of the field's dirt.

A caption is a head (modality, plane, organ) and a tail (finding, size, place). Six in ten captions
use the first head and tail of their modality, so that a model which reads the image well reaches a
high n-gram overlap although it cannot know which wording the author chose.
"""

from __future__ import annotations

import numpy as np

from lavis_msmedcap.phantom.medical.facts import Lesion, MedicalFacts
from lavis_msmedcap.phantom.seeding import chance, pick, pick_weighted

PANELS = ("A", "B")

_HEADS = {
    "ct": (
        "Coronal CT of the {organ}",
        "CT scan of the {organ}",
        "Coronal computed tomography of the {organ}",
        "CT image of the {organ}",
        "Non-enhanced CT of the {organ}",
    ),
    "mri": (
        "Coronal {sequence}-weighted MRI of the {organ}",
        "MRI of the {organ} ({sequence} sequence)",
        "Coronal {sequence}-weighted magnetic resonance imaging of the {organ}",
        "{sequence}-weighted MR image of the {organ}",
        "{sequence} MRI of the {organ}",
    ),
    "ultrasound": (
        "Ultrasound of the {organ}",
        "US scan of the {organ}",
        "Sonography of the {organ}",
        "Ultrasound image of the {organ}",
        "Grey-scale sonogram of the {organ}",
    ),
    "radiograph": (
        "Frontal radiograph of the {organ}",
        "X-ray of the {organ}",
        "Plain radiograph of the {organ}",
        "AP radiograph of the {organ}",
        "Frontal X-ray film of the {organ}",
    ),
}
_TAILS = (
    " showing {a_mm} {finding}{rim} in the {place}{arrow}.",
    " shows a {size} {finding}{rim} in the {place}{arrow}, measuring {mm} mm.",
    " demonstrating {a_finding}{rim} of {mm} mm in the {place}{arrow}.",
    ". There is {a_finding}{rim} measuring {mm} mm in the {place}{arrow}.",
    " reveals {a_mm} {finding}{rim} in the {place}{arrow}.",
)
_NORMAL_TAILS = (
    " showing a normal appearance with no focal lesion.",
    " shows no focal lesion.",
    " demonstrating normal findings with no focal lesion.",
    ". There is no focal lesion in this image.",
    " reveals a normal appearance and no focal lesion.",
)
_DEFINITIONS = {
    "ct": " CT: computed tomography.",
    "mri": " MRI: magnetic resonance imaging.",
    "ultrasound": " US: ultrasound.",
    "radiograph": " AP: anteroposterior.",
}
_TEMPLATE_WEIGHTS = ((0, 0.6), (1, 0.1), (2, 0.1), (3, 0.1), (4, 0.1))
_FIGURE_WORDS = (
    ("Figure {n}. ", 0.7),
    ("Fig. {n}: ", 0.15),
    ("Fig. {n}. ", 0.1),
    ("FIGURE {n}: ", 0.05),
)
_DEFINITION_RATE = 0.03
_NO_PERIOD_RATE = 0.02
_NO_SPACE_RATE = 0.3
_ROCO_FIGURE_RATE = 0.03


def medical_caption(facts: MedicalFacts, rng: np.random.Generator) -> str:
    """Writes one caption without a figure number.

    A caption with a lesion says ``left`` or ``right`` exactly once.

    Args:
        facts: What the image shows.
        rng: Decides the wording and the dirt.
    """
    template = pick_weighted(rng, _TEMPLATE_WEIGHTS)
    head = _HEADS[facts.modality][template].format(
        organ=facts.organ.name, sequence=(facts.sequence or "").upper()
    )
    if facts.lesion is None:
        text = head + _NORMAL_TAILS[template]
    else:
        text = head + _TAILS[template].format(**_phrases(facts, facts.lesion, rng))
    return _soil(text, facts.modality, rng)


def roco_caption(facts: MedicalFacts, rng: np.random.Generator, panel: str | None = None) -> str:
    """Writes a caption as ROCO has them: seldom a figure number, sometimes a panel letter.

    Args:
        facts: What the image shows.
        rng: Decides the wording and the dirt.
        panel: The panel letter stamped on the image, or None.
    """
    text = _with_panel(medical_caption(facts, rng), panel)
    return f"Fig. 1. {text}" if chance(rng, _ROCO_FIGURE_RATE) else text


def medicat_caption(
    facts: MedicalFacts, rng: np.random.Generator, number: int, panel: str | None = None
) -> str:
    """Writes a caption as MedICaT has them: every one begins with its figure number.

    Args:
        facts: What the image shows.
        rng: Decides the wording and the dirt.
        number: The figure's number in its article, from 1.
        panel: The panel letter stamped on the image, or None.
    """
    text = _with_panel(medical_caption(facts, rng), panel)
    return pick_weighted(rng, _FIGURE_WORDS).format(n=number) + text


def _phrases(facts: MedicalFacts, lesion: Lesion, rng: np.random.Generator) -> dict[str, str]:
    if facts.modality == "radiograph":
        finding = f"{lesion.shape} {facts.contrast}"
    else:
        finding = f"{lesion.shape} {facts.contrast} lesion"
    arrow = ""
    if lesion.arrow:
        arrow = " (arrow)" if chance(rng, 0.85) else " (white arrow)"
    return {
        "finding": finding,
        "a_finding": f"{'an' if finding[0] in 'aeiou' else 'a'} {finding}",
        "a_mm": f"{'an' if lesion.size_mm == 8 else 'a'} {lesion.size_mm} mm",
        "mm": str(lesion.size_mm),
        "size": lesion.size,
        "place": f"{lesion.side} {lesion.position} {facts.organ.region}",
        "rim": " with a calcified rim" if lesion.rim else "",
        "arrow": arrow,
    }


def _with_panel(text: str, panel: str | None) -> str:
    return text if panel is None else f"({panel}) {text}"


def _soil(text: str, modality: str, rng: np.random.Generator) -> str:
    """Adds an abbreviation's definition, drops a full stop or a space after one, now and then."""
    if chance(rng, _DEFINITION_RATE):
        definition = _DEFINITIONS[modality]
        return text + (definition.lstrip() if chance(rng, _NO_SPACE_RATE) else definition)
    if chance(rng, _NO_PERIOD_RATE):
        return text.rstrip(".")
    return text


def choose_panel(rng: np.random.Generator, rate: float) -> str | None:
    """Draws a panel letter for one image in ``1 / rate``, else None."""
    return pick(rng, PANELS) if chance(rng, rate) else None
