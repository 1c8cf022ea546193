"""Text on its way into HTML: escaped, and with the words marked that a caption got right."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lavis_msmedcap.evaluation.metrics.tokenize import sanitize
from lavis_msmedcap.phantom.facets import Facets, parse_facets

# Words that stand in almost every caption: marking them would only colour the page.
_COMMON = frozenset(
    {"a", "an", "the", "of", "in", "on", "at", "to", "and", "or", "with", "without", "from", "by"}
    | {"is", "are", "was", "were", "be", "been", "has", "have", "it", "its", "this", "that"}
    | {"these", "there", "which", "as", "for", "no", "not", "showing", "shows", "show", "shown"}
    | {"image", "figure", "fig", "scan", "view", "seen", "demonstrating", "demonstrates"}
)
# Facets that one word can name; a synonym of what the reference says is right as well.
_WORD_FACETS = ("modality", "organ", "side", "position", "contrast", "shape", "sequence")
_WORD = re.compile(r"\w+(?:[.,/-]\w+)*")
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class _Piece:
    """A stretch of caption: plain, shared with the reference, or naming the wrong side."""

    text: str
    kind: str


def escape(text: str) -> str:
    """Makes any text harmless inside an HTML element or a quoted attribute."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", sanitize(text)), quote=True)


def mark_caption(caption: str, references: Sequence[str]) -> str:
    """Returns a caption as HTML, with its relation to the references marked.

    Content words that a reference has too, or that name the same fact in another word, become
    ``<mark>``; neighbours share one mark. A side becomes ``<em class="other-side">`` where the
    references name only the opposite one.

    Args:
        caption: Raw caption.
        references: Raw references.
    """
    known = {word for text in references for word in _words(text)}
    stated = [parse_facets(text) for text in references]
    pieces: list[_Piece] = []
    position = 0
    text = sanitize(caption)
    for match in _WORD.finditer(text):
        _append(pieces, _Piece(text[position : match.start()], ""))
        _append(pieces, _Piece(match.group(), _kind(match.group().casefold(), known, stated)))
        position = match.end()
    _append(pieces, _Piece(text[position:], ""))
    return "".join(_render(piece) for piece in pieces)


def _append(pieces: list[_Piece], piece: _Piece) -> None:
    """Adds a piece; two marked pieces with only a space between them become one."""
    if not piece.text:
        return
    if piece.kind == "mark" and len(pieces) > 1 and pieces[-1].text == " ":
        space, before = pieces[-1], pieces[-2]
        if before.kind == "mark":
            pieces[-2:] = [_Piece(before.text + space.text + piece.text, "mark")]
            return
    pieces.append(piece)


def _kind(word: str, known: set[str], stated: Sequence[Facets]) -> str:
    if word in known:
        return "" if word in _COMMON else "mark"
    named = _word_facets(word)
    if any(getattr(named, name) in _values(stated, name) for name in _WORD_FACETS):
        return "mark"
    return "other-side" if named.side and _values(stated, "side") else ""


@lru_cache(maxsize=4096)
def _word_facets(word: str) -> Facets:
    return parse_facets(word)


def _values(stated: Sequence[Facets], name: str) -> set[str]:
    return {getattr(facets, name) for facets in stated} - {None}


def _words(text: str) -> list[str]:
    return [match.group().casefold() for match in _WORD.finditer(sanitize(text))]


def _render(piece: _Piece) -> str:
    text = escape(piece.text)
    if piece.kind == "mark":
        return f"<mark>{text}</mark>"
    if piece.kind == "other-side":
        return f'<em class="other-side" title="the reference names the other side">{text}</em>'
    return text
