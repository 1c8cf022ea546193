"""Left and right in captions: what has to be known before a picture may be mirrored.

A mirrored chest has its heart on the right and a caption that says "left lung" is wrong about it.
So a picture may be mirrored when its caption names no side, or when the sides in the caption are
swapped with it. Where there is doubt the answer is that a side is named: that only costs a flip.

========================================  ============  ===========
words                                     `names_side`  `can_swap`
========================================  ============  ===========
left, right, left-sided, rightward        yes           yes
right angle, was left in place            yes           no: perhaps no side
right-to-left shunt, right heart failure  yes           no: of the heart, not of the picture
(L), R kidney, LAD, RIF, RSPV, OD, Lt.    yes           no: letters mean other things too
left ventricle, right lobe of the liver   yes           no: called so wherever it lies
gauche, linksseitig, dexter, izq., dx     yes           no: another language, other endings
dextrocardia, situs inversus              yes           no: has no word for its mirror image
bilateral, upright, copyright, leftover   no            yes
========================================  ============  ===========
"""

from __future__ import annotations

import re

_NO_LETTER_BEFORE = r"(?<![^\W\d_])"
_NO_LETTER_BEHIND = r"(?![^\W\d_])"
_ENDINGS = r"(?i:wards?|wardly|most|hand|handed|sided?|lateral)"

_SWAPPED = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
_SWAPPED.update({right: left for left, right in tuple(_SWAPPED.items())})
_SIDE = re.compile(
    rf"{_NO_LETTER_BEFORE}(?:{'|'.join(_SWAPPED)})(?={_ENDINGS}?{_NO_LETTER_BEHIND})"
)

_NO_SIDE_PERHAPS = r"""
    (?:left|right)[\s-]+(?:angle[ds]?|away|now|before|after|up|out|off|open|over|alone|behind|
        untreated|unchanged|undisturbed|intact|to\s+heal|in|the|an?)
  | (?:is|are|was|were|be|been|being|has|have|had|he|she|they|patients?)\s+(?:left|right)(?!-)
"""
_OF_THE_HEART = r"""
    (?:left|right)[\s\-\u2013]+to[\s\-\u2013]+(?:left|right)
  | (?:left|right)(?:[\s-]sided)?[\s-]+heart
"""
# what anatomy calls left or right by its kind: a mirrored left ventricle is none of the right
_NAMED_STRUCTURES = r"""
    (?:left|right)(?:[\s\-]+[a-z]+){0,3}?[\s\-]+
    (?:ventric\w* | atri(?:um|al|a) | auric\w* | coronar\w* | circumflex | descending | bundle
      | main(?!\s+(?:stem\s+)?bronch) | hepatic\w* | liver | hemiliver | portal | \w*hepatectom\w*
      | \w*colectom\w* | colon\w* | colic | gastr\w+ | crus | crura | laryngeal | vagus
      | middle\s+lob\w+ | lobes?(?!\s+of\s+(?:the\s+)?lung))
  | (?:ventric\w* | atri(?:um|a))\W{1,3}(?:left|right)
"""
# words in capital letters that begin with L or R and are no abbreviation of a side
_CAPITALS = r"""
    LARGE | LAT | LEFT | LESION | LEVELS? | LGE | LIGHT | LINES? | LIVER | LOBES? | LOW | LOWER
  | LUMBAR | LUMEN | LUNGS? | LYMPH | RADIUS | RARE | RBC | RECIST | RECTAL | RECTUM | RENAL
  | REGION | RGB | RIBS? | RIGHT | RING | ROIS? | ROUND
"""
_ABBREVIATIONS = rf"""
    (?<!\d)(?-i:[LR])(?![\w\-'\u2019.]*\d)(?![\-'\u2019]\w)  # R, (L); not 2L, L4, R-CHOP
  | (?-i:[LR])-sided?
  | (?-i:(?!(?:{_CAPITALS}){_NO_LETTER_BEHIND})[LR][A-Z]{{1,5}}s?)  # LAD, RIF, LSPVs
  | (?-i:[LR]-(?:CC|MLO|ML|LM|XCCL)) | (?-i:\([lr]\))
  | (?-i:O[DS])  # eyes
  | [LR]t\.? | (?-i:[LR]T\.?) | (?-i:[LlRr]t[A-Z]\w*)
"""
_OTHER_LANGUAGES = r"""
    gauches? | droite?s? | gche | dte | \u00e0\s+[gd]\.
  | (?<=[^\W\d_]\s)(?-i:[DG])(?=\s*(?:$|[.,;]))  # poumon D, rein G
  | izquierd[oa]s? | derech[oa]s? | esquerd[oa]s? | direit[oa]s?
  | (?:izq|der|izda?|izdo|dch[ao]|esq)\.?
  | sinistr[oaie] | destr[oaie] | [ds]x\.? | sn\.?
  | (?:links|rechts|linker|rechter)[a-z\u00e4\u00f6\u00fc\u00df]* | linke[nms]?
  | rechte[nms]?
  | (?-i:li|re)\.
  | sinister | dexter | dextra | dextrum | sinistrum
"""
_MIRROR_HAS_NO_WORD = r"""
    (?:dextr|sinistr|la?ev)o(?:-?(?:card|posi|posed|scoli|rot|convex|curv|verte|transpos|gastr|apex)\w*)
  | situs(?:\s+\w+)? | heterotax\w* | isomerism
"""
_DOUBTFUL = re.compile(
    rf"""
    {_NO_LETTER_BEFORE}
    (?:{_NO_SIDE_PERHAPS} | {_OF_THE_HEART} | {_NAMED_STRUCTURES} | {_ABBREVIATIONS}
      | {_OTHER_LANGUAGES} | {_MIRROR_HAS_NO_WORD})
    {_NO_LETTER_BEHIND}
    """,
    re.VERBOSE | re.IGNORECASE,
)
# written in mixed case, so that swapping twice would not give it back
_OTHER_CASE = re.compile(
    rf"{_NO_LETTER_BEFORE}(?!{'|'.join(_SWAPPED)})(?i:left|right)(?={_ENDINGS}?{_NO_LETTER_BEHIND})"
)


def names_side(text: str) -> bool:
    """Tells whether a caption says, or may say, on which side something is.

    Args:
        text: Caption, raw or cleaned.
    """
    return bool(_SIDE.search(text)) or not can_swap(text)


def can_swap(text: str) -> bool:
    """Tells whether `swap_sides` makes the caption of the mirrored picture; without sides, it does.

    Args:
        text: Caption, raw or cleaned.
    """
    return not (_DOUBTFUL.search(text) or _OTHER_CASE.search(text))


def swap_sides(text: str) -> str:
    """Writes right for left and left for right; done twice, it gives the caption back.

    Whether the result is true of the mirrored picture says `can_swap`.

    Args:
        text: Caption, raw or cleaned.

    Returns:
        The caption with every "left" and "right" of its own swapped, capitals kept.
    """
    return _SIDE.sub(lambda match: _SWAPPED[match.group()], text)
