"""Captions looked at: how long they are, how much of them a run cuts off, and what is odd."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lavis_msmedcap.datasets.caption_text import squeeze
from lavis_msmedcap.datasets.records import MedCapRecord

EMPTY = "empty"
SHORT = "very short"
LONG = "very long"
CUT_WORDS = "longer than max_words"
CUT_TOKENS = "longer than max_txt_len"
BREAKS = "with line breaks"
GARBLED = "in a broken encoding"
FOREIGN = "perhaps not in English"
REPEATED = "on several images"
SIDE = "naming a side"
NON_ASCII = "with characters beyond ASCII"

SHORT_WORDS = 3  # fewer than this
LONG_WORDS = 150  # more than this
PERCENTILES = (5, 50, 90, 99, 100)
TOKEN_SAMPLE = 50_000  # slow tokenizers take a minute for so many
_FOREIGN_WORDS = 6

_BREAK = re.compile("[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_GARBLED = re.compile(
    "\ufffd|\u00c3[\u0080-\u00bf\u2020-\u203a]|\u00e2\u20ac|\u00c2[\u00a0-\u00bf]"
)
_SIDE = re.compile(
    r"\b(?:left|right)(?:ward|wards|most)?\b|\b(?:bi|contra|ipsi)lateral", re.IGNORECASE
)
_WORD = re.compile(r"[^\W\d_]+")
# words that hardly a sentence of the language does without, and that English does not have
_ENGLISH = frozenset(
    {"the", "of", "and", "in", "a", "an", "with", "is", "are", "was", "to", "on", "at", "by"}
    | {"from", "no", "shows", "showing"}
)
_FOREIGN = frozenset(
    {"de", "la", "le", "les", "des", "du", "une", "est", "avec", "dans", "et", "sur", "en"}
    | {"el", "los", "las", "con", "una", "del", "por", "que", "uma", "com", "na", "da", "do"}
    | {"der", "die", "das", "und", "mit", "eine", "einer", "ist", "im", "von", "auf"}
    | {"il", "della", "dei", "nella", "het", "een", "van"}
)


@dataclass(frozen=True)
class CaptionRules:
    """What a run does with the captions of a data set.

    Attributes:
        prepare: Caption to the text that training reads, nothing cut off.
        max_words: Words after which training cuts; 0 for no limit.
        max_tokens: Tokens after which the model cuts; 0 if unknown.
        count_tokens: Text to its number of tokens, all that count towards the limit; None where
            there is no tokenizer.
        tokens_of: Whose tokens, for people.
    """

    prepare: Callable[[str], str] = squeeze
    max_words: int = 50
    max_tokens: int = 0
    count_tokens: Callable[[str], int] | None = None
    tokens_of: str = ""


@dataclass
class CaptionStats:
    """Figures of the captions of one data set.

    Attributes:
        source: Name of the data set.
        captions: Their number.
        words: Words of a prepared caption at ``PERCENTILES``.
        tokens: The same in tokens; None without a tokenizer.
        counted: Number of captions that were tokenized.
        limit: ``max_txt_len``.
        tokens_of: Whose tokens.
        above: Share of captions above ``max_words`` and ``max_txt_len``, by kind.
        kinds: Captions by what is odd about them; of the longer than max_txt_len, of those counted.
    """

    source: str
    captions: int
    words: list[int]
    tokens: list[int] | None = None
    counted: int = 0
    limit: int = 0
    tokens_of: str = ""
    above: dict[str, float] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class CaptionCheck:
    """What became of the captions of all data sets.

    Attributes:
        stats: One per data set.
        odd: Indices of records by what is odd about one of their captions.
        rules: What they were measured by, by data set.
    """

    stats: list[CaptionStats]
    odd: dict[str, list[int]]
    rules: Mapping[str, CaptionRules] = field(default_factory=dict)

    def kinds_of(self, record: MedCapRecord, caption: str) -> list[str]:
        """Says what is odd about one caption of a record, see `oddities`."""
        rules = self.rules.get(record.source, CaptionRules())
        return oddities(caption, rules.prepare(caption), rules.max_words)


def check_captions(
    records: Sequence[MedCapRecord], rules: Mapping[str, CaptionRules]
) -> CaptionCheck:
    """Looks at all captions.

    Args:
        records: Of any number of data sets.
        rules: By data set; another one has the defaults.
    """
    by_source: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        by_source.setdefault(record.source, []).append(index)
    odd: dict[str, list[int]] = {}
    stats = []
    for source, indices in by_source.items():
        own = rules.get(source, CaptionRules())
        stats.append(_check_source(source, [(i, records[i]) for i in indices], own, odd))
    return CaptionCheck(stats, odd, rules)


def oddities(caption: str, prepared: str, max_words: int) -> list[str]:
    """Says what is odd about one caption.

    Args:
        caption: As it was written.
        prepared: As training reads it, nothing cut off.
        max_words: Words after which training cuts; 0 for no limit.
    """
    words = prepared.split()
    if not words:
        return [EMPTY]
    tests = {
        SHORT: len(words) < SHORT_WORDS,
        LONG: len(words) > LONG_WORDS,
        CUT_WORDS: 0 < max_words < len(words),
        BREAKS: _BREAK.search(caption.strip()) is not None,
        GARBLED: _GARBLED.search(caption) is not None,
        FOREIGN: _is_foreign(prepared),
        SIDE: _SIDE.search(prepared) is not None,
        NON_ASCII: not caption.isascii(),
    }
    return [kind for kind, is_so in tests.items() if is_so]


def _check_source(
    source: str,
    records: Sequence[tuple[int, MedCapRecord]],
    rules: CaptionRules,
    odd: dict[str, list[int]],
) -> CaptionStats:
    prepared: list[tuple[int, str]] = []
    owners: dict[str, set[int]] = {}
    kinds: Counter[str] = Counter()
    for index, record in records:
        found: set[str] = set()
        for caption in record.captions:
            text = rules.prepare(caption)
            prepared.append((index, text))
            own = oddities(caption, text, rules.max_words)
            kinds.update(own)
            found.update(own)
            owners.setdefault(squeeze(caption).casefold(), set()).add(index)
        for kind in found:
            odd.setdefault(kind, []).append(index)
    shared = {index for several in owners.values() if len(several) > 1 for index in several}
    if shared:
        odd.setdefault(REPEATED, []).extend(sorted(shared))
        kinds[REPEATED] = len(shared)
    words = [len(text.split()) for _, text in prepared]
    stats = CaptionStats(source, len(prepared), _percentiles(words), kinds=kinds)
    if rules.max_words:
        stats.above[CUT_WORDS] = kinds[CUT_WORDS] / max(len(prepared), 1)
    _count_tokens(prepared, rules, stats, odd)
    return stats


def _count_tokens(
    prepared: Sequence[tuple[int, str]],
    rules: CaptionRules,
    stats: CaptionStats,
    odd: dict[str, list[int]],
) -> None:
    """Adds what the model's own limit cuts off of what training leaves of the captions."""
    if rules.count_tokens is None:
        return
    chosen = list(prepared)
    if len(chosen) > TOKEN_SAMPLE:
        chosen = random.Random(0).sample(chosen, TOKEN_SAMPLE)
    counts = [rules.count_tokens(_cut(text, rules.max_words)) for _, text in chosen]
    stats.tokens, stats.counted = _percentiles(counts), len(counts)
    stats.limit, stats.tokens_of = rules.max_tokens, rules.tokens_of
    if rules.max_tokens:
        above = [i for (i, _), n in zip(chosen, counts) if n > rules.max_tokens]
        stats.kinds[CUT_TOKENS] = len(above)
        stats.above[CUT_TOKENS] = len(above) / max(len(counts), 1)
        if above:
            odd.setdefault(CUT_TOKENS, []).extend(sorted(set(above)))


def _cut(text: str, max_words: int) -> str:
    words = text.split(" ")
    return " ".join(words[:max_words]) if 0 < max_words < len(words) else text


def _percentiles(values: Sequence[int]) -> list[int]:
    if not values:
        return [0] * len(PERCENTILES)
    found = np.percentile(values, PERCENTILES)
    return [round(float(value)) for value in found]


def _is_foreign(text: str) -> bool:
    """Suspects another language where two of its small words stand and none of English."""
    words = [word.casefold() for word in _WORD.findall(text)]
    if len(words) < _FOREIGN_WORDS or any(word in _ENGLISH for word in words):
        return False
    return sum(word in _FOREIGN for word in words) >= 2
