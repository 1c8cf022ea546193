"""Caption cleaning and a tokenizer that follows the Penn Treebank rules of the COCO caption scores.

The COCO scores are defined on the output of a Java tokenizer. `tokenize` gives the same tokens for
almost every caption without Java, so scores exist on every machine; each score sheet names the
tokenizer it was made with. Three habits of the original matter for medical text and are kept:

* brackets stay, as the tokens ``-lrb-``, ``-rrb-``, ``-lsb-``, ``-rsb-``, ``-lcb-``, ``-rcb-``;
* a decimal number stays whole, a unit stuck to it does not: ``3.5cm`` is ``3.5 cm``;
* a missing space after a full stop glues two words: ``image.Arrow`` is ``image.arrow``.

The lexer takes, at each place, the longest match over all rules, and the first rule among equals.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from lavis_msmedcap.evaluation.metrics.ptb_words import (
    ABBREVIATIONS,
    CAPITALISED_ABBREVIATIONS,
    NUMBER_ABBREVIATIONS,
    SENTENCE_STARTERS,
)

TOKENIZER = "ptb-py"

# Every character that some program takes for the end of a line. One of them inside a caption would
# shift all later captions of a line-based scorer to the wrong image.
_LINE_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")
_FIELD_MARK = re.compile(r"\|{3,}")  # separates fields in METEOR's protocol
_SURROGATES = re.compile("[\ud800-\udfff]")  # cannot be written to a file or a pipe

_DROPPED = frozenset(["''", "'", "``", "`", '"', "?", "!", ",", ":", ";"])
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_REWRITTEN = {
    "cannot": "can not",
    "gimme": "gim me",
    "gonna": "gon na",
    "gotta": "got ta",
    "lemme": "lem me",
    "wanna": "wan na",
    "'tis": "'t is",
    "'twas": "'t was",
}
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " ", "&amp;": "&"}

# Currency signs, fractions and quotation marks have one spelling each; a soft hyphen vanishes, and
# a long dash, a mark that is dropped in the end, only separates.
_CHARACTERS = str.maketrans(
    {
        "\u00a2": " cents ",
        "\u00a3": "#",
        "\u00a4": "$",
        "\u20a0": "$",
        "\u20ac": "$",
        "\u00bc": " 1/4 ",
        "\u00bd": " 1/2 ",
        "\u00be": " 3/4 ",
        "\u2153": " 1/3 ",
        "\u2154": " 2/3 ",
        "\u2026": "...",
        "\u2013": " ",
        "\u2014": " ",
        "\u2015": " ",
        "\u2018": "'",
        "\u2019": "'",
        "\u201b": "'",
        "\u2039": "'",
        "\u203a": "'",
        "\u00ab": '"',
        "\u00bb": '"',
        "\u201c": '"',
        "\u201d": '"',
        "\u00ad": None,
    }
)

# Letters of all scripts with their combining marks, without superscripts, fractions and numerals.
_L = (
    r"(?:[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209f\u2150-\u218f\u2460-\u24ff\u2776-\u2793]"
    r"|[\u02c2-\u02ff\u0300-\u036f])"
)
_A = rf"(?:{_L}|[0-9])"  # letter or digit

_WEB_RULES = (
    r"https?://[^\s\"<>|()]+[^\s\"<>|.!?(){},-]",
    r"www\.(?:[^\s\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}(?:/[^\s\"<>|()]+[^\s\"<>|.!?(){},-])?",
    r"(?:[^\s\"`'<>|.!?(){},$-]+\.)+(?:com|net|org|edu)/[^\s\"<>|()]+[^\s\"<>|.!?(){},-]",
    r"[a-zA-Z0-9][^\s\"<>|()@{}]*@[^\s\"<>|()@{},;:]*[a-zA-Z0-9]",
    r"[@#][a-zA-Z_][a-zA-Z_0-9]*",
    r"<[/!?]?[A-Za-z][^\s<>:]*>",
)
_APOSTROPHE_RULES = (
    r"(?i:n't)(?![A-Za-z])",
    r"'(?i:s|re|ve|d|ll|m|tis|twas)(?![A-Za-z0-9])",
    r"'[0-9]{2}s?(?![A-Za-z0-9])",
    rf"[A-HJ-XZn]'{_L}{{2,}}|(?![jyJY]){_L}'[aeiouyAEIOUY]{_L}*|[lLdDjJyY]'",
    rf"(?i:o'clock|ma'am|qu'{_L}+)",
)
_ABBREVIATION_RULES = (
    rf"(?i:{ABBREVIATIONS})\.",
    rf"(?:{CAPITALISED_ABBREVIATIONS})\.",
    rf"(?i:{NUMBER_ABBREVIATIONS})\.(?=[0-9])",
    r"(?i:[a-z](?:\.[a-z])*|ed\.d|ph\.d)\.",
    rf"[0-9]*{_L}(?:{_A}|[-_])*\.(?=[,;:])",
)
_NUMBER_RULES = (
    r"[-+]?(?:[0-9]+(?:[.:,][0-9]+)*|(?:[.:,][0-9]+)+)",
    r"[0-9]+[/\u2044][0-9]+",
    r"[\u207a\u207b]?[\u00b2\u00b3\u00b9\u2070-\u2079]+|[\u208a\u208b]?[\u2080-\u2089]+",
)
_WORD_RULES = (
    rf"{_A}+(?:_{_A}+)*",
    rf"{_L}+(?:[!?@]{_L}+)+",
    rf"{_L}{_A}*(?:\.{_L}{_A}*)+",
    # The first part of a hyphenated word may hold numbers, the last may be an acronym: 5-y.o.
    rf"{_A}(?:{_A}|[.,_])*"
    rf"(?:[-\u2010\u2011](?:(?:[A-Za-z]\.){{2,}}|{_A}(?:{_A}|_)*))+",
    rf"{_A}+(?:-{_L}+){{0,2}}(?:/{_A}+(?:-{_L}+){{0,2}}){{1,2}}",
    r"[A-Z]+(?:[&+][A-Z]+)+",
    r"[CcFf]#|C\+\+",
)
_SIGN_RULES = (
    r"[<>]?[:;=][-o*]?[()DPdpO](?![A-Za-z0-9])",
    r"(?:US|HK|NZ|A|C|S|M|NT)\$",
    r"\.+|[!?]+|-+|\*+|_+|<<|>>|#{2,}|``|''|-_-|\^_\^",
    # One visible sign. Whatever else Unicode holds only separates.
    r"[!-/:-@\[-`{-~\u00a1-\u00bf\u00d7\u00f7\u2016-\u2023\u2030-\u2042\u2044"
    r"\u2070-\u208e\u20a4\u2100-\u214f\u2155-\u215e\u2190-\u2bff\uff01-\uffe6]",
)
_RULES = tuple(
    re.compile(rule)
    for rule in (
        *_WEB_RULES,
        *_APOSTROPHE_RULES,
        *_ABBREVIATION_RULES,
        *_NUMBER_RULES,
        *_WORD_RULES,
        *_SIGN_RULES,
    )
)
_SENTENCE_STARTER = re.compile(SENTENCE_STARTERS)
_INITIAL = re.compile(r"(?<![A-Za-z0-9.])[A-Za-z]\.$")
_SIMPLE_WORD = re.compile(r"[A-Za-z][a-z]*")
_CONTRACTION = re.compile(rf"(?i)(?<=[a-z])n't(?![a-z])|(?<={_A})'(?:s|re|ve|d|ll|m)(?![a-z0-9])")
_ENTITY = re.compile("|".join(_ENTITIES))
_OPEN_ABBREVIATION = re.compile(rf"(?i)(?<![a-z0-9])(?:{NUMBER_ABBREVIATIONS})\.$")


def sanitize(text: str) -> str:
    """Makes a caption safe for line-based and field-based scorers; the words stay as they are.

    Any Unicode line break and any ``|||`` becomes one space, and the text is put into the composed
    Unicode form (NFC), so that the same letter always has the same code points.
    """
    text = _SURROGATES.sub("\ufffd", text)
    text = _FIELD_MARK.sub(" ", _LINE_BREAKS.sub(" ", text))
    return unicodedata.normalize("NFC", text)


def tokenize(text: str) -> str:
    """Splits a caption into lower-case tokens joined by single spaces, without punctuation marks.

    Args:
        text: One caption; it is sanitised first.
    """
    text = _ENTITY.sub(lambda match: _ENTITIES[match.group()], sanitize(text))
    pieces = text.translate(_CHARACTERS).split()
    tokens: list[str] = []
    for piece, following in zip(pieces, [*pieces[1:], ""]):
        if following[:1].isdecimal() and _OPEN_ABBREVIATION.search(piece):
            *head, last = _tokenize_piece(piece[:-1])
            tokens += [*head, f"{last}."]
        elif _SENTENCE_STARTER.fullmatch(following) and _INITIAL.search(piece):
            tokens += _tokenize_piece(piece[:-1])
        else:
            tokens += _tokenize_piece(piece)
    return " ".join(tokens)


@lru_cache(maxsize=65536)
def _tokenize_piece(piece: str) -> tuple[str, ...]:
    """Tokenizes text that holds no white space; most pieces of a corpus are met again and again."""
    if _SIMPLE_WORD.fullmatch(piece):
        lowered = piece.lower()
        return tuple(_REWRITTEN.get(lowered, lowered).split())
    tokens: list[str] = []
    for part in _CONTRACTION.sub(r" \g<0>", piece).split():
        tokens += _lex(part)
    return tuple(tokens)


def _lex(text: str) -> list[str]:
    """Cuts text into tokens by the longest matching rule and drops the punctuation marks."""
    tokens: list[str] = []
    position = 0
    while position < len(text):
        ends = (match.end() for rule in _RULES if (match := rule.match(text, position)))
        end = max(ends, default=position)
        if end > position:
            token = text[position:end].lower()
            if not _is_dropped(token):
                token = "".join(_BRACKETS.get(sign, sign) for sign in token)
                tokens += _REWRITTEN.get(token, token).split()
        position = max(end, position + 1)
    return tokens


def _is_dropped(token: str) -> bool:
    """Tells whether a token is a punctuation mark, or a dash of up to four hyphens."""
    return token in _DROPPED or not token.strip(".") or (len(token) < 5 and not token.strip("-"))
