"""How many tokens texts have, for a hundred thousand of them in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class TextLength:
    """Counts the tokens of texts word by word, and tokenizes each word once.

    WordPiece and byte-level BPE cut at white space before anything else, so that the sum over the
    words is the number of tokens of the text. Captions share most of their words.

    Args:
        tokenize: Text to tokens, without those that begin and end a text.
        extra: Tokens around a text: beginning, prompt, end.
        blank: What stands in front of a word where it is tokenized: " " for byte-level BPE.
        first_blank: The same for the first word.
    """

    def __init__(
        self,
        tokenize: Callable[[str], Sequence[Any]],
        extra: int,
        blank: str = "",
        first_blank: str | None = None,
    ) -> None:
        self._tokenize = tokenize
        self._extra = extra
        self._blank = blank
        self._first_blank = blank if first_blank is None else first_blank
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Returns the tokens that a text takes up, those around it included."""
        words = text.split()
        spaced = [self._first_blank + word for word in words[:1]]
        spaced += [self._blank + word for word in words[1:]]
        return self._extra + sum(map(self._count, spaced))

    def at_most(self, text: str) -> int:
        """Returns a number that the tokens of a text cannot exceed, at no cost."""
        # no token of these tokenizers is shorter than a byte
        return self._extra + len(text.encode(errors="surrogatepass")) + len(self._first_blank)

    def _count(self, word: str) -> int:
        if word not in self._known:
            self._known[word] = len(self._tokenize(word))
        return self._known[word]
