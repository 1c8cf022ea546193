"""CIDEr of one caption given to every image, for many captions at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Ngram = tuple[str, ...]

_ORDERS = 4  # n-grams of one to four words
_SIGMA = 6.0  # width of the length penalty


@dataclass(frozen=True)
class _Vector:
    """A caption as weighted n-grams: known to the references or not, and its norm per order."""

    ids: IntArray  # (M,) n-grams that occur in some reference
    weights: FloatArray  # (M,)
    norms: FloatArray  # (4,), of all n-grams
    length: int  # number of word pairs: what the length penalty of the COCO scores compares


class ConstantCider:
    """Scores constant captions against fixed references.

    The references are turned into weighted vectors once and kept as one posting list per n-gram, so
    a caption costs a few array operations per n-gram instead of one walk over all references.
    Values equal those of pycocoevalcap's scorer up to rounding.

    Args:
        references: For each of n images the tokens of its references, words joined by spaces.
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        flat = [_ngrams(text) for group in references for text in group]
        self._images = np.repeat(np.arange(len(references)), [len(group) for group in references])
        self._per_image = np.bincount(self._images, minlength=len(references)).astype(np.float64)
        self._log_n = math.log(len(references))
        self._ids: dict[Ngram, int] = {}
        self._weights = self._inverse_frequencies(flat)
        self._orders = np.array([len(ngram) - 1 for ngram in self._ids], dtype=np.int64)
        vectors = [self._vector(counts) for counts in flat]
        self._norms = np.stack([vector.norms for vector in vectors], axis=1)  # (4, R)
        self._lengths = np.array([vector.length for vector in vectors], dtype=np.float64)
        self._build_postings(vectors)

    def score(self, captions: Sequence[str]) -> FloatArray:
        """CIDEr over all images of each caption.

        Args:
            captions: K captions as tokens.

        Returns:
            (K,) scores.
        """
        return np.array([self._score_one(caption) for caption in captions])

    def centrality(self, captions: Sequence[str]) -> FloatArray:
        """Likeness of each caption to the mean reference; a fast stand-in for its score.

        Returns:
            (K,) sums over the orders of the cosine with the sum of the normalised references.
        """
        scale = _divide(np.ones(self._norms.shape), self._norms)
        numbers = np.repeat(np.arange(len(self._ids)), np.diff(self._starts))  # (P,)
        parts = self._values * scale[self._orders[numbers], self._rows]
        mean = np.bincount(numbers, parts, minlength=len(self._ids))  # (V,)
        values = []
        for caption in captions:
            vector = self._vector(_ngrams(caption))
            products = vector.weights * mean[vector.ids]
            sums_per_order = np.bincount(self._orders[vector.ids], products, minlength=_ORDERS)
            dots = sums_per_order.astype(np.float64)
            values.append(float(_divide(dots, vector.norms).sum()))
        return np.array(values)

    def _inverse_frequencies(self, flat: Sequence[Counter[Ngram]]) -> FloatArray:
        """Numbers the n-grams and weighs them by how few images they occur in: (V,)."""
        image_count: list[int] = []
        last_image: list[int] = []
        for image, counts in zip(self._images, flat):
            for ngram in counts:
                number = self._ids.setdefault(ngram, len(image_count))
                if number == len(image_count):
                    image_count.append(0)
                    last_image.append(-1)
                if last_image[number] != image:
                    image_count[number] += 1
                    last_image[number] = int(image)
        return self._log_n - np.log(np.maximum(1.0, np.array(image_count, dtype=np.float64)))

    def _vector(self, counts: Counter[Ngram]) -> _Vector:
        squares = np.zeros(_ORDERS)
        ids, weights = [], []
        for ngram, count in counts.items():
            number = self._ids.get(ngram)
            weight = count * (self._log_n if number is None else float(self._weights[number]))
            squares[len(ngram) - 1] += weight * weight
            if number is not None:
                ids.append(number)
                weights.append(weight)
        length = sum(count for ngram, count in counts.items() if len(ngram) == 2)
        return _Vector(np.array(ids, dtype=np.int64), np.array(weights), np.sqrt(squares), length)

    def _build_postings(self, vectors: Sequence[_Vector]) -> None:
        """Sorts all (reference, n-gram, weight) triples by n-gram."""
        ids = np.concatenate([vector.ids for vector in vectors])
        rows = np.repeat(np.arange(len(vectors)), [len(vector.ids) for vector in vectors])
        order = np.argsort(ids, kind="stable")
        self._rows = rows[order]
        self._values = np.concatenate([vector.weights for vector in vectors])[order]
        self._starts = np.searchsorted(ids[order], np.arange(len(self._ids) + 1))

    def _score_one(self, caption: str) -> float:
        vector = self._vector(_ngrams(caption))
        dots = np.zeros_like(self._norms)  # (4, R)
        for number, weight in zip(vector.ids, vector.weights):
            span = slice(self._starts[number], self._starts[number + 1])
            values = self._values[span]
            # A reference occurs once in a posting list, so plain indexing adds correctly.
            dots[self._orders[number], self._rows[span]] += np.minimum(values, weight) * values
        cosines = _divide(dots, vector.norms[:, None] * self._norms)
        penalty = np.exp(-((vector.length - self._lengths) ** 2) / (2 * _SIGMA**2))  # (R,)
        per_reference = cosines.mean(axis=0) * penalty
        per_image = np.bincount(self._images, weights=per_reference) / self._per_image
        return float(10.0 * per_image.mean())


def _divide(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divides, giving 0 where the denominator is 0."""
    result: FloatArray = np.zeros_like(numerator)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _ngrams(text: str) -> Counter[Ngram]:
    words = text.split()
    return Counter(_each_ngram(words))


def _each_ngram(words: Sequence[str]) -> Iterator[Ngram]:
    for order in range(1, _ORDERS + 1):
        for start in range(len(words) - order + 1):
            yield tuple(words[start : start + order])
