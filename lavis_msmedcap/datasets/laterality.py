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
(L), R kidney, L-MCA, l. hip, rMCA, RIF   yes           no: letters mean other things too
left ventricle, right lobe of the liver   yes           no: called so wherever it lies
gauche, linksseitig, dexter, izq., dx     yes           no: another language, other endings
anything in letters beyond Latin-1        yes           no: not understood
LeftLung, theleft, rigth, lymph node 4R   yes           no: written otherwise
3 o'clock, clockwise                      yes           no: the mirror image has another hour
dextrocardia, situs inversus              yes           no: has no word for its mirror image
bilateral, upright, leftover, L4, R-CHOP  no            yes
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
# what a single L or R before it is no side of: regimens, enantiomers, waves, measures, the L-spine
_BEHIND_HYPHEN = r"""
    (?:mini-)?CHOP | DHAP | EPOCH | ICE | bendamustin\w* | spondin\w* | on | R | S1 | bands?
  | selectin | arginine? | ascorbi\w* | asparaginase | aspart\w+ | carnitine? | citrulline?
  | cysteine? | dopa | glutamine? | isomers? | lacta\w+ | lacti\w+ | leucine? | lysine?
  | methionine? | ornithine? | phenylalanine? | thyroxine? | tryptophan | tyrosine?
"""
_BEHIND_SPACE = r"""
    waves? | peaks? | values? | squared? | shaped? | types? | spines? | S(?:[\s-]+spines?|-spines?)
"""
_LETTER = rf"""
    (?<!R[\-\u2010\u2011])(?:(?-i:[LR])(?<!\d[LR])|(?-i:[lr])(?<![\d/][lr])(?<!\d\s[lr])(?!\s*=))
    (?![\-.'\u2019]?\d)(?!['\u2019]\w)  # not L4, R2*, L-4, l'artere
    (?!(?:[\-\u2010\u2011](?:{_BEHIND_HYPHEN}|{_BEHIND_SPACE})|\s(?:{_BEHIND_SPACE}))
       {_NO_LETTER_BEHIND})
"""
# rCBV and the like: relative, regional, recombinant, ribosomal
_SMALL_R = r"r(?:CBFV?|CBV|MTT|TTP|TMS|ADC|RNAs?|DNAs?|SO)"
_ABBREVIATIONS = rf"""
    {_LETTER}  # R, (l), l. kidney, L-MCA, R.MCA
  | (?-i:(?!(?:{_CAPITALS}){_NO_LETTER_BEHIND})[LR][A-Z]{{1,5}}s?)  # LAD, RIF, LSPVs
  | (?-i:(?!{_SMALL_R}{_NO_LETTER_BEHIND})[lr][A-Z]\w* | [LR][A-Z][a-z]\w*)  # rMCA, lKidney, RLung
  | \d{{1,2}}(?-i:R) | (?:stations?|nodes?|levels?)\s+\d{{1,2}}(?-i:[LR]\w?)  # lymph node 4R
  | (?-i:[UL][LR]\d{{0,2}})  # teeth
  | (?-i:O[DS])  # eyes
  | [LR]t\.? | (?-i:[LR]T\.?) | (?-i:[LlRr]t[A-Z]\w*) | (?:lft|rgt|rht|rght)\.?
"""
# the mirror image of a watch goes the other way round
_CLOCKS = r"o\s?['\u2018\u2019`]?\s?clocks? | (?:counter|anti)?-?clockwise"
_MISSPELT = rf"""
    (?:left|right)(?!{_ENDINGS}?{_NO_LETTER_BEHIND})  # leftlung, LeftLung
      (?!(?:overs?|s|ed|ly|ful|fully|eous\w*|ness|ists?){_NO_LETTER_BEHIND})[^\W\d_]+
  | le[\W_]{{1,3}}ft | ri[\W_]{{1,3}}ght | letf | lfet | rigth | rihgt | rigt
"""
# words of other languages that are none in English captions, with their usual endings
_OTHER_LANGUAGES = r"""
    gauches? | droite?s? | gche | dte | \u00e0\s+[gd]\.
  | (?<=[^\W\d_]\s)(?-i:[DG])(?=\s*(?:$|[.,;]))  # poumon D, rein G
  | izquierd\w+ | derech[oa]s? | esquerd[oa]s? | d[ie]reit[oa]s? | esquerr[ea]s? | dret[ae]?s?
  | (?:izq|der|izda?|izdo|dch[ao]|esq)\.?
  | sinistr[oaie] | destr[oaie] | [ds]x\.? | sn\.?
  | (?:links|rechts|linker|rechter)[a-z\u00e4\u00f6\u00fc\u00df]* | linke[nms]?
  | rechte[nms]? | regter\w* | regs
  | (?-i:li|re)\.
  | sinister | dexter | dextr(?:a[em]?|i|um|o) | sinistr(?:ae|am|um) | (?:sin|dext?|dxt)\.
  | h(?:\u00f8|o|oe)[yj]re\w* | venstre\w* | h[\u00f6o]ger\w* | v[\u00e4a]nster\w*
  | h\u00e6gr\w+ | vinstr\w+ | oike[ai]\w* | vase[nm]\w* | vasak\w* | parem\w*
  | lew(?:y(?!\s+bod)|a|e|ego|ej|ym|o|ostronn\w+) | praw(?:y|a|e|ego|ej|ym|o|ostronn\w+)
  | (?:lev|prav)(?:a|i|o|[\u00fd\u00e1\u00e9]\w*|ou|ega|eho|em|ostrann\w+)
  | lijev\w+ | desn(?:[aeiou]|o[gj]|[aei]m|ega|oga)
  | bal(?:\s+oldal\w*|oldal\w*) | jobb\w* | st[a\u00e2]ng\w* | drept\w* | dreapt\w*
  | sol | kiri | kanan | tr\u00e1i | kair\w+ | ezker\w* | eskuin\w* | majt\w*
"""
# words in letters beyond Latin-1 are not understood; single Greek letters are measures
_UNKNOWN_LETTERS = r"""
    (?![\u0370-\u03ff\ufb00-\ufb06])[^\W\d_\x00-\xff] | [\u0370-\u03ff]{2} | [\u0300-\u036f]
"""
# theleft, kidneyRight, lungL; not cleft, bright, fright, Wright, upright, copyright, outright
_INSIDE_A_WORD = r"""
    (?<=[^\W\d_])(?i:(?<!c)left
      | (?<![bw])(?<!\bf)(?<!\bup)(?<!\bal)(?<!py)(?<!\bout)(?<!down)(?<!forth)(?<!birth)right)
  | (?<=[a-z])(?:Left|Right|LEFT|RIGHT) | (?<=[a-z]{3})[LR](?![^\W\d_])
"""
_MIRROR_HAS_NO_WORD = r"""
    (?:dextr|sinistr|la?ev)o(?:-?(?:card|posi|posed|scoli|rot|convex|curv|verte|transpos|gastr|apex)\w*)
  | situs(?:\s+\w+)? | heterotax\w* | isomerism
"""
_DOUBTFUL = re.compile(
    rf"""
    {_NO_LETTER_BEFORE}
    (?:{_NO_SIDE_PERHAPS} | {_OF_THE_HEART} | {_NAMED_STRUCTURES} | {_ABBREVIATIONS}
      | {_CLOCKS} | {_MISSPELT} | {_OTHER_LANGUAGES} | {_MIRROR_HAS_NO_WORD})
    {_NO_LETTER_BEHIND}
    | (?-i:{_UNKNOWN_LETTERS} | {_INSIDE_A_WORD})
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
