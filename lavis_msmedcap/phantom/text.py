"""Text without images, from which the miniature language model learns to write captions.

A large language model can put given content into a caption because it has read much text. The
miniature one learns it from documents in which notes about an unseen image stand before the
caption, in changing styles and orders; in stage 2 the visual prefix takes the notes' place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import numpy as np

from lavis_msmedcap.phantom.general_facts import (
    NUMBERS,
    GeneralFacts,
    general_captions,
    sample_general_facts,
)
from lavis_msmedcap.phantom.medical.captions import choose_panel, medicat_caption, roco_caption
from lavis_msmedcap.phantom.medical.facts import MedicalFacts, sample_facts
from lavis_msmedcap.phantom.seeding import chance, pick, pick_weighted, rng_for

Notes = list[tuple[str, str]]
Transform = Callable[[str], str]

DEFAULT_PROMPT = "Question: Describe the image. Answer:"

_KINDS = (("notes", 0.7), ("prompt", 0.15), ("plain", 0.15))
_DROP_RATE = 0.1
_LARGEST_FIGURE_NUMBER = 4
_PANEL_RATE = 0.05
_MODALITY_NAMES = {
    "ct": ("CT", "computed tomography"),
    "mri": ("MRI", "magnetic resonance imaging"),
    "ultrasound": ("ultrasound", "US", "sonography"),
    "radiograph": ("radiograph", "X-ray"),
}


def medical_text(
    seed: int, n: int, transform: Transform = str, prompt: str = DEFAULT_PROMPT
) -> Iterator[str]:
    """Yields documents about medical phantoms that were never drawn.

    Args:
        seed: Seed of the stream; document ``i`` does not depend on ``n``.
        n: Number of documents.
        transform: Applied to the caption only, for example the training text processor.
        prompt: What stands between the notes and the caption.

    Yields:
        ``<notes> <prompt> <caption>``, ``<prompt> <caption>`` or ``<caption>``, each ending in a
        line feed.
    """
    for index in range(n):
        rng = rng_for(seed, "text/medical", index)
        facts = sample_facts(rng)
        panel = choose_panel(rng, _PANEL_RATE)
        if chance(rng, 0.5):
            caption = roco_caption(facts, rng, panel)
        else:
            number = int(rng.integers(1, _LARGEST_FIGURE_NUMBER + 1))
            caption = medicat_caption(facts, rng, number, panel)
        yield _document(_medical_notes(facts, rng), transform(caption), prompt, rng)


def general_text(
    seed: int, n: int, transform: Transform = str, prompt: str = DEFAULT_PROMPT
) -> Iterator[str]:
    """Yields documents about general phantoms that were never drawn.

    Args:
        seed: Seed of the stream; document ``i`` does not depend on ``n``.
        n: Number of documents.
        transform: Applied to the caption only, for example the training text processor.
        prompt: What stands between the notes and the caption.

    Yields:
        Documents of the same three kinds as `medical_text`.
    """
    for index in range(n):
        rng = rng_for(seed, "text/general", index)
        facts = sample_general_facts(rng)
        caption = general_captions(facts, rng)[0]
        yield _document(_general_notes(facts), transform(caption), prompt, rng)


def _document(notes: Notes, caption: str, prompt: str, rng: np.random.Generator) -> str:
    kind = pick_weighted(rng, _KINDS)
    if kind == "plain":
        return f"{caption}\n"
    if kind == "prompt":
        return f"{prompt} {caption}\n"
    kept = [note for note in notes if not chance(rng, _DROP_RATE)] or notes[:1]
    shuffled = [kept[int(i)] for i in rng.permutation(len(kept))]
    style = pick(rng, (_labelled, _keywords, _sentences))
    return f"{style(shuffled)} {prompt} {caption}\n"


def _labelled(notes: Notes) -> str:
    return " ".join(f"{name[0].upper()}{name[1:]}: {value}." for name, value in notes)


def _keywords(notes: Notes) -> str:
    return ", ".join(value for _, value in notes) + "."


def _sentences(notes: Notes) -> str:
    return " ".join(f"The {name} is {value}." for name, value in notes)


def _medical_notes(facts: MedicalFacts, rng: np.random.Generator) -> Notes:
    notes = [("modality", pick(rng, _MODALITY_NAMES[facts.modality])), ("organ", facts.organ.name)]
    if facts.sequence is not None:
        notes.append(("sequence", facts.sequence.upper()))
    lesion = facts.lesion
    if lesion is None:
        return [*notes, ("finding", "no focal lesion")]
    noun = "" if facts.modality == "radiograph" else " lesion"
    finding = f"{lesion.shape} {facts.contrast}{noun}"
    if lesion.rim:
        finding += " with a calcified rim"
    notes += [
        ("side", lesion.side),
        ("position", lesion.position),
        ("size", pick(rng, (f"{lesion.size_mm} mm", f"{lesion.size}, {lesion.size_mm} mm"))),
    ]
    if chance(rng, 0.5):
        notes.append(("finding", finding))
    else:
        notes += [("shape", lesion.shape), ("contrast", str(facts.contrast))]
        if lesion.rim:
            notes.append(("rim", "calcified"))
    if lesion.arrow:
        notes.append(("mark", "arrow"))
    return notes


def _general_notes(facts: GeneralFacts) -> Notes:
    notes = [("background", f"{facts.texture} {facts.background}")]
    first = facts.things[0]
    if facts.kind == "pair":
        second = facts.things[1]
        pair = f"{first.colour} {first.shape} {facts.relation} {second.colour} {second.shape}"
        return [*notes, ("scene", pair)]
    notes += [("colour", first.colour), ("shape", first.shape)]
    if facts.kind == "single":
        return [*notes, ("size", first.size)]
    return [*notes, ("number", NUMBERS[facts.count])]
