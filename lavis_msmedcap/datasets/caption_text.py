"""What is cleaned out of a figure caption before a model learns to write it.

Captions of articles carry things that no picture shows: figure numbers, letters of panels, pointers
into a drawing, numbers of citations, whose permission was asked. Each kind has its own step and is
counted. Decimals, units, brackets, hyphens, vertebrae and sequences (L4, T1) are left as they
stand. References of an evaluation stay raw unless someone asks for cleaned ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, MutableMapping

# every character that some tool takes for the end of a line, other controls, blanks of any width,
# and the invisible operators that MathML leaves in captions
_TO_SPACE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u2061-\u2064\u3000]"
)
# marks that only say where a line may break or how letters join
_TO_NOTHING = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_SPACES = re.compile(" {2,}")

_LETTER = r"[A-Ha-h]"
_LETTERS = rf"{_LETTER}(?:\s?(?:[-\u2013,&]|and)\s?{_LETTER})*"
_JOINED = r"\s*(?:,\s*(?:and\s+)?|&\s*|and\s+|[-\u2013]\s*)"
# genera are shortened to a letter; the species that articles name, where they begin with a capital
_SPECIES = (
    r"(?i:coli|pylori|difficile|cepacia|fae?cal\w+|fae?cium|influenzae|albicans|fumigatus|"
    r"baumannii|granulosus|histolytica|perfringens|botulinum|fragilis|cloacae|trachomatis|"
    r"neoformans|lamblia|duodenal\w+|niger|flavus|henselae|burgdorferi|pertussis|anthracis|"
    r"cereus|multilocularis|jejuni|immitis|psittaci|pneumoniae|aerogenes|diphtheriae|"
    r"dermatitidis|ducreyi|glabrata|auris|abortus|melitensis|medinensis|hepatica|lumbricoides)\b"
)
# letters that begin a caption and are no panel: a stain, "E. coli", "A.P. view", "B scan"
_NO_PANEL = (
    rf"(?!(?i:H\s?(?:&|and)\s?E)\b|{_LETTER}\.\s?(?:[A-Z]\.|Braun\b|{_SPECIES})"
    r"|(?i:(?:[AB]\s(?:mode|scans?|lines?)|[BH]\scells?|C\sarm|D\sdimers?)\b))"
)
_FIGURE_PREFIX = re.compile(
    rf"""
    ^\W*
    (?:suppl(?:ementa(?:ry|l)|\.)?\s*)?
    fig(?:ure)?s?\b\.?\s*
    (?![1-4](?-i:D)\s+\w)                            # "Figure 3D CT": a panel, or 3D CT
    (?!8[\s\-]+(?:loop|shape|sign|config|appear|deform|pattern|knot)\w*)  # which looks like an 8
    [a-z]?\d+(?:\.\d+)*                              # 2, S1, 2.1
    (?:
        (?:[a-h]|\s{_NO_PANEL}(?!a\s+\w)[a-h])       # 2a, 2 b, not "2 A 45-year-old man"
        (?:\s?[\-\u2013,&]\s?[a-h])*                 # 2a-c
        (?!\w|[\-\u2013]\w)                          # not B-mode
    )?
    (?:
        \s*[.:;|)\-\]\u2013\u2014]*                  # "Figure 2." "Fig. 3:" "Fig 1a |"
        (?:[.:;|)\]\u2014]|[\-\u2013](?!(?-i:[a-z])))  # not "Figure. 45-year-old man"
        (?!\d)\s*
      | \s+(?-i:(?=[A-Z0-9(\[]|an?\s\d))            # "Figure 2 CT scan", but not "Figure 2 shows"
      | \s*$
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)

_PANEL_PREFIX = re.compile(
    rf"""
    ^\W*?
    (?:
        [(\[]\s?(?:panels?\s)?{_NO_PANEL}{_LETTERS}\s?[)\]]              # (A) [b] (a-c) (A):
        (?:{_JOINED}[(\[]\s?{_LETTERS}\s?[)\]])*(?![\-\u2013]\w)    # (A) and (B), not [F]-FDG
        \s*[.:,;\-\u2013]?\s*
      | {_NO_PANEL}{_LETTERS}\s?\)(?:{_JOINED}{_LETTERS}\s?\))*\s+       # A) and B)
      | {_NO_PANEL}{_LETTERS}\s?[):]\s+                                 # A) a:
      | {_NO_PANEL}{_LETTERS}\.\s+(?=[A-Z0-9(])  # "A. Axial CT", not "C. difficile colitis"
    )
    """,
    re.VERBOSE,
)

_POINTER = (
    r"(?:arrow\s?heads?|arrow(?:s|ed)?|asteri[sx](?:k|ks|es)?|stars?|triangles?|circles?|"
    r"[*\u2190-\u2199\u21d0-\u21d9\u25b2-\u25c5\u2605\u2606\u27a1\u2b05-\u2b07]+)"
)
_POINTER_EXTRA = (
    r"(?:white|black|gr[ae]y|red|yellow|blue|green|orange|purple|pink|cyan|magenta|"
    r"curved|straight|long|short|thick|thin|small|large|big|open|solid|filled|hollow|dotted|dashed|"
    r"bold|single|double|horizontal|vertical|see|at|by|the|in|and|or|with|marked|indicated|shown|"
    rf"panels?|figs?|figures?|{_LETTER})"
)
_POINTERS = re.compile(
    rf"""
    \s*
    (?P<open>[(\[])
    [\s,;/&.\-\u2013]*
    (?:{_POINTER_EXTRA}(?!\w)[\s,;/&.\-\u2013]*)*
    {_POINTER}(?!\w)
    [\s,;/&.\-\u2013]*
    (?:(?:{_POINTER_EXTRA}|{_POINTER})(?!\w)[\s,;/&.\-\u2013]*)*
    [)\]]
    """,
    re.VERBOSE | re.IGNORECASE,
)

_UNIT = (
    r"(?:[numck\u00b5\u03bc]?m[23\u00b2\u00b3]?|inch(?:es)?|mmhg|cmh2o|[m\u00b5\u03bck]?g|[md]?l|cc|"
    r"iu|units?|[mk]?hz|h\.?u\.?|hounsfield|[mc]?gy|m?sv|kvp?|mas?|[mgk]?bq|m?ci|"
    r"t(?:esla)?|bpm|beats|fr(?:ench)?|gauge|"
    r"m?s(?:ec(?:ond)?s?)?|min(?:ute)?s?|h(?:ou)?rs?|days?|weeks?|months?|years?|yrs?|"
    r"deg(?:ree)?s?|percent|times|points?|cases|patients|slices|frames)"
)
_TRACER = (
    r"m?(?:(?-i:A[ct]|Bi|C[ou]?|F|Ga|In?|Kr|Lu|N|O|Pb|R[ab]|S[mr]|T[cl]|Xe|Y|Zr|FDG|FE[ST]|FLT|PSMA)|"
    r"(?:fluor|gall|technet|lutet|yttr|iod|thall|ind|radi|carb|copp|zirc|xen|rubid|samar)\w*)"
)
# numbers alone, as in "[12]", "[3, 5-7]", "[Ref. 4]"; not in "[2.5]", "[95% CI]", "(12)"
_CITATION = re.compile(
    rf"""
    \s*
    (?<!\b[A-Z])(?<!\b[A-Z]\s)       # "C[2-3]" is a disc
    \[\s*(?:ref(?:erence)?s?\.?\s*)?
    (?!0)                            # "[0, 10]" is a range
    \d{{1,3}}(?:\s*[,;\-\u2013]\s*\d{{1,3}})*
    \s*\]
    (?![\-\u2013]?\w)                # "[18]F-FDG" is an isotope, "[2]-methyl" a position
    (?!\s+(?:(?-i:[A-Z][a-z]?)-\w|{_TRACER}(?!\w)))  # "[18] F-FDG", "[177] Lu" too
    (?!\s*(?:[%\u00b0\u00d7]|{_UNIT}(?!\w)))  # "[10-20] mm" is a measurement
    """,
    re.VERBOSE | re.IGNORECASE,
)
# words whose number may stand in brackets: "SUVmax [12]"
_VALUED = re.compile(
    r"\b(?:SUV\w*|ASPECTS|RADS|scores?|grades?|stages?|levels?|zones?|segments?|types?|class)\s*$",
    re.IGNORECASE,
)
_LONGEST_VALUED = 16  # characters

_OWNED = r"(?:\u00a9|copyright\b)"
_PERMITTED = (
    r"(?:reproduced|reprinted|republished|adapted|modified|used),?\s+"
    r"(?:\S+\s+){0,3}?permissions?\b"
)
_PICTURE = r"(?:(?:this|the)\s+)?(?:image|figure|photo(?:graph)?)s?\s+(?:(?:is|was|are|were)\s+)?"
# "J." of "by J. Smith", but not of "Smith J. The arrow marks a mass": there a sentence ends
_INITIALS = (
    r"(?:\s*(?-i:[A-Z])\.(?:[\s\-]*(?-i:[A-Z])\.)*"
    r"(?=\s*(?!(?:the|this|these|there|an?|ct|mri?)\b)(?-i:[A-Z])[\w'\-]))"
)
_NAME_BEGINS = (
    rf"(?:\b(?:(?:by|from|of|and|to)\b|(?:drs?|profs?|mr?s?)\b\.?)|[&(]|\d,?){_INITIALS}"
    r"|\b(?:drs?|profs?|mr?s?|st)\."
)
# to the full stop before a capital or the end: not in "0.37", "Ref. 5", "et al. (2010)"
_REST_OF_SENTENCE = rf"{_INITIALS}?(?:{_NAME_BEGINS}|[^.]|\.(?!\s*$|\s+(?-i:[A-Z])))*\.?"
_REST_OF_BRACKET = r"(?:[^()\[\]]|\([^()\[\]]*\)|\[[^()\[\]]*\])*[)\]]"
_COPYRIGHT = re.compile(
    rf"""
    \s*[(\[]\s*(?:{_PICTURE})?(?:{_OWNED}|{_PERMITTED}){_REST_OF_BRACKET}
  | (?:^|(?<=[.!?)\]])\s*)
    (?:
        (?:{_PICTURE})?(?:{_OWNED}|{_PERMITTED}){_REST_OF_SENTENCE}
      | all\s+rights\s+reserved(?:\.|$)
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_COPYRIGHT_WORDS = re.compile(r"\u00a9|copyright|permission|rights\s+reserved", re.IGNORECASE)

# what LAVIS' blip_caption replaces by blanks
_LAVIS_MARKS = str.maketrans(dict.fromkeys('.!"()*#:;~', " "))
_BLANKS = re.compile(r"\s{2,}")


def squeeze(text: str) -> str:
    """Puts a caption on one line: NFC, every break or odd blank a space, no two spaces together."""
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", text)
        text = _TO_NOTHING.sub("", _TO_SPACE.sub(" ", text))
    return _SPACES.sub(" ", text).strip()


def strip_figure_prefix(text: str) -> str:
    """Removes a leading figure number: "Figure 2.", "Fig. 3:", "Fig 1a", "Figure 2 CT" -> "CT"."""
    return _FIGURE_PREFIX.sub("", text, count=1)


def strip_panels(text: str) -> str:
    """Removes panel letters at the start: "(A)", "(a-c)", "A:", and "A." before a capital."""
    return _PANEL_PREFIX.sub("", text, count=1)


def strip_pointers(text: str) -> str:
    """Removes brackets that hold nothing but pointers: "(arrow)", "(white arrowheads in B)", "(*)".

    A bracket that says more, as "(arrow, 5 mm)", stays.
    """
    return _POINTERS.sub(_gap, text) if "(" in text or "[" in text else text


def strip_citations(text: str) -> str:
    """Removes numbers of citations in square brackets: "[12]", "[3, 5-7]", but not "[2.5]"."""
    return _CITATION.sub(_uncited, text) if "[" in text else text


def strip_copyright(text: str) -> str:
    """Removes who owns a picture and who gave permission.

    A bracket or a sentence that begins with a copyright sign, "Copyright", "Reproduced with
    permission" (reprinted, adapted, used) or "All rights reserved". Other words of the caption
    before it stay.
    """
    return _COPYRIGHT.sub("", text) if _COPYRIGHT_WORDS.search(text) else text


def strip_marks(text: str) -> str:
    """Replaces punctuation by spaces as LAVIS does: ``. ! " ( ) * # : ; ~``; 0.37 becomes 0 37."""
    return text.translate(_LAVIS_MARKS)


def join_blanks(text: str) -> str:
    """Joins runs of blanks as LAVIS does; a lone tab or line break inside stays."""
    return _BLANKS.sub(" ", text).rstrip("\n").strip(" ")


# in the order in which they are applied: a figure number stands before a panel letter
STEPS: dict[str, Callable[[str], str]] = {
    "figure_prefix": strip_figure_prefix,
    "panels": strip_panels,
    "pointers": strip_pointers,
    "citations": strip_citations,
    "copyright": strip_copyright,
}
SPACES = "spaces"


def clean_caption(
    text: str,
    steps: Collection[str] = tuple(STEPS),
    *,
    unicode: bool = True,
    counts: MutableMapping[str, int] | None = None,
) -> str:
    """Cleans a caption.

    A step that would leave no letter or digit is not taken: a caption never becomes empty here.

    Args:
        text: Raw caption.
        steps: Names out of ``STEPS``; their order does not matter.
        unicode: Put the caption on one line with `squeeze`; False leaves characters as they are
            and only joins runs of blanks.
        counts: Where to count the captions that each step changed, under the step's name, and
            "spaces" for those that `squeeze` or `join_blanks` changed inside.

    Returns:
        The caption without leading or trailing blanks; one line if ``unicode``.
    """
    tidy = squeeze if unicode else join_blanks
    clean = tidy(text)
    changed = [] if clean == text.strip() else [SPACES]
    for name, step in STEPS.items():
        if name not in steps:
            continue
        after = tidy(step(clean))
        if after != clean and any(map(str.isalnum, after)):
            clean = after
            changed.append(name)
    if counts is not None:
        for name in changed:
            counts[name] = counts.get(name, 0) + 1
    return clean


def _gap(match: re.Match[str]) -> str:
    """Keeps a space where a removed bracket stood directly between two words."""
    before = match.string[: match.start()]
    after = match.string[match.end() :]
    return " " if before and after[:1].isalnum() else ""


def _uncited(match: re.Match[str]) -> str:
    """Keeps a number that may be the value of the word before it."""
    before = match.string[max(0, match.start() - _LONGEST_VALUED) : match.start()]
    return match.group() if _VALUED.search(before) else ""
