"""Reads the facts back out of any caption, whoever wrote it, so that they can be scored.

The words of the phantoms' own grammar are covered completely; common synonyms are understood too,
because a model may pick them up elsewhere. Case and punctuation do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from lavis_msmedcap.phantom.medical.facts import BRIGHT_WORD, DARK_WORD


@dataclass(frozen=True)
class Facets:
    """What a caption says; None where it does not say it, or says two different things.

    Attributes:
        modality: ``ct``, ``mri``, ``ultrasound`` or ``radiograph``.
        organ: ``brain``, ``chest``, ``abdomen``, ``knee``, ``liver``, ``kidney``, ``thyroid`` or
            ``pelvis``.
        lesion: True if one is described, False if the caption says that there is none.
        side: ``left`` or ``right``.
        position: ``upper``, ``middle`` or ``lower``.
        contrast: The modality's word (``hypodense``, ``hyperintense``, ``opacity``, ...).
        shape: ``round``, ``oval``, ``lobulated`` or ``spiculated``.
        size: ``small`` or ``large``, from the word or from the millimetres.
        size_mm: Longest diameter in millimetres.
        sequence: ``t1`` or ``t2``.
        rim: True if a calcified rim is described, else None.
        arrow: True if an arrow is mentioned, else None.
    """

    modality: str | None = None
    organ: str | None = None
    lesion: bool | None = None
    side: str | None = None
    position: str | None = None
    contrast: str | None = None
    shape: str | None = None
    size: str | None = None
    size_mm: int | None = None
    sequence: str | None = None
    rim: bool | None = None
    arrow: bool | None = None


def _table(**patterns: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(rf"\b(?:{text})\b")) for name, text in patterns.items())


_MODALITY = _table(
    ct="cts?|computed tomograph\\w*|computeri[sz]ed tomograph\\w*|cat scan",
    mri="mris?|mr|magnetic resonance|t[12]\\w?|t[12] ?w",
    ultrasound="ultrasound|ultrasonogra\\w+|sonogra\\w+|us|echogra\\w+",
    radiograph="radiogra\\w+|x ?rays?|xr|roentgenogra\\w+|plain film",
)
_ORGAN = _table(
    brain="brain|head|cerebral|cranial|hemispheres?",
    chest="chest|thora\\w+|lungs?|pulmonary",
    abdomen="abdomen|abdominal|quadrant",
    knee="knees?",
    liver="liver|hepatic",
    kidney="kidneys?|renal",
    thyroid="thyroid",
    pelvis="pelvis|pelvic|hemipelvis",
)
_SIDE = _table(left="left|lt", right="right|rt")
_POSITION = _table(
    upper="upper|superior|top|apical",
    middle="middle|mid|central",
    lower="lower|inferior|bottom|basal",
)
_SHAPE = _table(
    round="round\\w*|circular|spherical",
    oval="ovals?|ovoid|elliptic\\w*",
    lobulated="lobulated|lobular|multilobulated",
    spiculated="spiculat\\w+|irregular|stellate",
)
_SIZE = _table(small="small|tiny|little", large="large|big|huge")
_SEQUENCE = _table(t1="t1\\w?", t2="t2\\w?")
# words that name the contrast whatever the modality is
_OWN_CONTRAST = _table(
    hypodense="hypo ?dense|hypo ?attenuat\\w+|low (?:density|attenuation)",
    hyperdense="hyper ?dense|hyper ?attenuat\\w+|high (?:density|attenuation)",
    hypointense="hypo ?intens\\w+|low signal",
    hyperintense="hyper ?intens\\w+|high signal",
    hypoechoic="hypo ?echo\\w+|anechoic",
    hyperechoic="hyper ?echo\\w+|echogenic",
    opacity="opacit\\w+|radiopa\\w+|sclerotic",
    lucency="lucenc\\w+|lucent|radiolucen\\w+|lytic",
)
# words that need the modality to become one of the above
_LOOSE_CONTRAST = _table(dark="dark|darker", bright="bright|brighter|white(?! arrow)")
_NO_LESION = re.compile(
    r"\b(?:no|without(?: any)?|absence of)(?: focal| evident)? (?:lesions?|abnormalit\w+|mass)\b"
)
_LESION = re.compile(r"\b(?:lesions?|nodules?|mass(?:es)?|tumou?rs?|opacit\w+|lucenc\w+|cysts?)\b")
_NORMAL = re.compile(r"\b(?:normal|unremarkable)\b")
_MILLIMETRES = re.compile(r"\b(\d{1,3}(?:\.\d+)?)[\s-]*(mm|millimet\w+|cm)\b")
_RIM = re.compile(r"\b(?:calcified rim|rim calcification|ring calcification|calcified ring)\b")
_ARROW = re.compile(r"\barrow(?:head)?s?\b")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
_LARGEST_SMALL_MM = 17


def parse_facets(caption: str) -> Facets:
    """Reads the facts that ``caption`` states.

    Args:
        caption: Any text: raw, lower-cased, without punctuation, or cut off.
    """
    text = _NOT_WORD.sub(" ", caption.lower()).strip()
    modality = _first(_MODALITY, text)
    denied = _NO_LESION.search(text) is not None
    lesion = None
    if denied:
        lesion = False
    elif _LESION.search(text):
        lesion = True
    elif _NORMAL.search(text):
        lesion = False
    size_mm = _millimetres(caption.lower())  # before the decimal point is lost
    size = _only(_SIZE, text)
    if size is None and size_mm is not None:
        size = "small" if size_mm <= _LARGEST_SMALL_MM else "large"
    return Facets(
        modality=modality,
        organ=_first(_ORGAN, text),
        lesion=lesion,
        side=_only(_SIDE, text),
        position=_only(_POSITION, text),
        contrast=_contrast(text, modality),
        shape=_only(_SHAPE, text),
        size=size,
        size_mm=size_mm,
        sequence=_only(_SEQUENCE, text),
        rim=True if _RIM.search(text) else None,
        arrow=True if _ARROW.search(text) else None,
    )


def compare_facets(caption: str, reference: str) -> dict[str, bool]:
    """Says for every fact that ``reference`` states whether ``caption`` states the same.

    Args:
        caption: A model's caption.
        reference: The caption that counts as true.

    Returns:
        One entry per fact stated by the reference; a fact that the caption leaves out is False.
    """
    stated, found = asdict(parse_facets(reference)), asdict(parse_facets(caption))
    return {name: found[name] == value for name, value in stated.items() if value is not None}


FACET_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Facets))


def _hits(table: Sequence[tuple[str, re.Pattern[str]]], text: str) -> list[tuple[int, str]]:
    found = ((pattern.search(text), name) for name, pattern in table)
    return sorted((match.start(), name) for match, name in found if match is not None)


def _first(table: Sequence[tuple[str, re.Pattern[str]]], text: str) -> str | None:
    """Returns the name mentioned first: the imaged organ precedes the region within it."""
    hits = _hits(table, text)
    return hits[0][1] if hits else None


def _only(table: Sequence[tuple[str, re.Pattern[str]]], text: str) -> str | None:
    """Returns the name mentioned if it is the only one: "left and right" is no side."""
    hits = _hits(table, text)
    return hits[0][1] if len(hits) == 1 else None


def _contrast(text: str, modality: str | None) -> str | None:
    own = _only(_OWN_CONTRAST, text)
    if own is not None or modality is None:
        return own
    loose = _only(_LOOSE_CONTRAST, text)
    if loose is None:
        return None
    return (DARK_WORD if loose == "dark" else BRIGHT_WORD)[modality]


def _millimetres(text: str) -> int | None:
    match = _MILLIMETRES.search(text)
    if match is None:
        return None
    return round(float(match.group(1)) * (10 if match.group(2) == "cm" else 1))
