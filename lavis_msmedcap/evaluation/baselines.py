"""Two captioners that do not look at the image; a model that does must beat both clearly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.evaluation.metrics.constant import ConstantCider
from lavis_msmedcap.evaluation.metrics.corpus import build_corpus
from lavis_msmedcap.evaluation.metrics.tokenize import tokenize
from lavis_msmedcap.evaluation.predictions import Prediction, check_predictions
from lavis_msmedcap.evaluation.score import (
    DEFAULT_METRICS,
    GroupScores,
    corpus_of,
    score_corpus,
)


class ConstantBaseline(TypedDict):
    """The caption that scores best when every image gets it, and its scores."""

    caption: str
    candidates: int
    group: GroupScores


class DealtBaseline(TypedDict):
    """Scores of a model's own captions after each went to another image."""

    seed: int
    group: GroupScores


def best_constant_caption(
    references: Sequence[Sequence[str]],
    *,
    candidates: Iterable[str] | None = None,
    max_candidates: int = 200,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> ConstantBaseline:
    """Finds the one caption that maximises CIDEr when it is given to every image.

    Choosing on the test references themselves makes this baseline as strong as one caption can be.

    Args:
        references: For each image its references, at least one.
        candidates: Captions to try, for example those of the training split; by default all
            references.
        max_candidates: Of more distinct candidates than this, the most central ones are tried.
        metrics: Metrics to report for the winner.

    Raises:
        DataError: If there is no image or no candidate.
    """
    if not references:
        raise DataError("no references: the best constant caption needs at least one image")
    texts = candidates if candidates is not None else (t for group in references for t in group)
    by_tokens: dict[str, str] = {}
    for text in texts:
        by_tokens.setdefault(tokenize(text), text)
    if not by_tokens:
        raise DataError("no candidate for the best constant caption; expected at least one text")
    scorer = ConstantCider([[tokenize(text) for text in group] for group in references])
    tokens = list(by_tokens)
    if len(tokens) > max_candidates:
        order = np.argsort(-scorer.centrality(tokens), kind="stable")
        tokens = [tokens[i] for i in order[:max_candidates]]
    caption = by_tokens[tokens[int(np.argmax(scorer.score(tokens)))]]
    corpus = build_corpus([caption] * len(references), references)
    return {
        "caption": caption,
        "candidates": len(tokens),
        "group": score_corpus(corpus, metrics),
    }


def dealt_to_others(
    predictions: Sequence[Prediction],
    seed: int = 0,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
) -> DealtBaseline:
    """Scores the same captions after dealing each to another image.

    What a caption still earns on a wrong image it earns by style, not by looking.

    Args:
        predictions: As for `score_captions`; at least two.
        seed: Chooses the deal, a random permutation that leaves no caption in its place.
        metrics: Metrics to report.

    Raises:
        DataError: If the predictions are malformed or fewer than two.
    """
    check_predictions(predictions)
    if len(predictions) < 2:
        raise DataError("dealing captions to other images needs at least two predictions")
    deal = derangement(len(predictions), seed)
    corpus = corpus_of(predictions).with_captions_from(deal)
    return {"seed": seed, "group": score_corpus(corpus, metrics)}


def derangement(n: int, seed: int) -> list[int]:
    """Draws a permutation of 0..n-1 without a fixed point, each with equal chance.

    About one permutation in e has none, so a few draws are enough.

    Raises:
        ValueError: If n is below 2.
    """
    if n < 2:
        raise ValueError(f"no permutation of {n} items leaves no item in its place")
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(n)
        if not np.any(order == np.arange(n)):
            return [int(place) for place in order]
