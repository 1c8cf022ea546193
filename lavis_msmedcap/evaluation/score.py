"""From predictions to a score sheet: every metric on its own, over all images and per dataset."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypedDict

from lavis_msmedcap.evaluation.metrics.corpus import (
    Corpus,
    Metric,
    MetricResult,
    MetricSkippedError,
    build_corpus,
)
from lavis_msmedcap.evaluation.metrics.meteor import meteor
from lavis_msmedcap.evaluation.metrics.ngram import bleu, cider
from lavis_msmedcap.evaluation.metrics.rouge import rouge_l
from lavis_msmedcap.evaluation.metrics.tokenize import TOKENIZER
from lavis_msmedcap.evaluation.predictions import Prediction, check_predictions

logger = logging.getLogger(__name__)

# A metric is opened once per sheet and then scores one corpus after the other, so that one with a
# costly start (a Java program, a network) pays for it once.
METRICS: Final[dict[str, Callable[[], AbstractContextManager[Metric]]]] = {
    "BLEU": lambda: nullcontext(bleu),
    "ROUGE_L": lambda: nullcontext(rouge_l),
    "CIDEr": lambda: nullcontext(cider),
    "METEOR": meteor,
}
DEFAULT_METRICS: Final = ("BLEU", "ROUGE_L", "CIDEr")
_SEVERAL_SCORES: Final = {"BLEU": tuple(f"BLEU-{order}" for order in range(1, 5))}


class Status(TypedDict):
    """How a metric ended: ``state`` is ok, skipped or failed; ``reason`` may be empty if ok."""

    state: str
    reason: str


Outcome = tuple[Status, MetricResult]


class TextFigures(TypedDict):
    """Plain figures of the captions; a low distinct rate shows a model that ignores the image."""

    distinct_rate: float
    empty_rate: float
    mean_words: float
    mean_reference_words: float


class GroupScores(TypedDict):
    """Scores over one group of images."""

    n: int
    scores: dict[str, float]
    status: dict[str, Status]
    text: TextFigures


class ScoreSheet(TypedDict):
    """All scores of a set of predictions; plain values, ready for JSON.

    ``per_image`` holds one entry per prediction, in order, with ``image_id``, ``dataset`` and the
    metrics that are defined per image, computed over the pooled set.
    """

    signature: str
    pooled: GroupScores
    per_dataset: dict[str, GroupScores]
    per_image: list[dict[str, Any]]


def score_captions(
    predictions: Sequence[Prediction],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    tokenizer: str = TOKENIZER,
) -> ScoreSheet:
    """Scores predictions against their references.

    A metric that cannot run is marked ``skipped`` or ``failed`` with the reason; it never takes the
    other scores with it. CIDEr depends on the whole set, so gather the predictions of all processes
    first and never average sheets of parts.

    Args:
        predictions: Mappings with ``image_id`` (str), ``dataset`` (str), ``caption`` (str) and
            ``references`` (a list of str, at least one); other keys are ignored.
        metrics: Names from ``METRICS``. METEOR needs Java and about ten seconds to start.
        tokenizer: ``ptb-py`` (built in) or ``ptb-java`` (the original; needs Java).

    Raises:
        DataError: If the predictions are empty, malformed or hold an image twice.
        ValueError: If a metric or the tokenizer is unknown.
        JavaError: If the Java tokenizer was asked for and does not work.
    """
    check_predictions(predictions)
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ValueError(f"unknown metrics {unknown}; choose from {', '.join(METRICS)}")
    corpus = corpus_of(predictions, tokenizer)
    places: dict[str, list[int]] = {}
    for index, prediction in enumerate(predictions):
        places.setdefault(prediction["dataset"], []).append(index)
    corpora = [corpus, *(corpus.subset(indices) for indices in places.values())]
    if len(places) == 1:
        corpora.pop()
    results = {name: _run_metric(name, corpora) for name in metrics}
    groups = [
        _group_scores(part, {name: results[name][i] for name in metrics})
        for i, part in enumerate(corpora)
    ]
    return {
        "signature": _signature(corpus),
        "pooled": groups[0],
        "per_dataset": dict(zip(places, groups[1:] or groups)),
        "per_image": _per_image(predictions, [results[name][0] for name in metrics]),
    }


def score_names(metrics: Sequence[str] = DEFAULT_METRICS) -> list[str]:
    """Returns the names of the scores that metrics give where they work."""
    return [score for name in metrics for score in _SEVERAL_SCORES.get(name, (name,))]


def score_corpus(corpus: Corpus, metrics: Sequence[str] = DEFAULT_METRICS) -> GroupScores:
    """Scores one corpus as one group; see `score_captions` for how failures are treated."""
    return _group_scores(corpus, {name: _run_metric(name, [corpus])[0] for name in metrics})


def corpus_of(predictions: Sequence[Prediction], tokenizer: str = TOKENIZER) -> Corpus:
    """Cleans and tokenizes checked predictions."""
    return build_corpus(
        [prediction["caption"] for prediction in predictions],
        [prediction["references"] for prediction in predictions],
        tokenizer,
    )


def _run_metric(name: str, corpora: Sequence[Corpus]) -> list[Outcome]:
    """Runs one metric over several corpora; nothing that goes wrong in it leaves this function."""
    outcomes: list[Outcome] = []
    try:
        with METRICS[name]() as metric:
            for corpus in corpora:
                outcomes.append(_run_once(name, metric, corpus))
    except Exception as error:  # noqa: BLE001 - one metric must never take the others with it
        missing = len(corpora) - len(outcomes)
        outcomes += [_bad_outcome(name, error)] * missing
    return outcomes


def _run_once(name: str, metric: Metric, corpus: Corpus) -> Outcome:
    try:
        result = metric(corpus)
    except Exception as error:  # noqa: BLE001 - one metric must never take the others with it
        return _bad_outcome(name, error)
    return {"state": "ok", "reason": result.note}, result


def _bad_outcome(name: str, error: Exception) -> Outcome:
    nothing = MetricResult({})
    if isinstance(error, MetricSkippedError):
        logger.warning("%s skipped: %s", name, error)
        return {"state": "skipped", "reason": str(error)}, nothing
    logger.error("%s failed: %s", name, error, exc_info=error)
    return {"state": "failed", "reason": f"{type(error).__name__}: {error}"}, nothing


def _group_scores(corpus: Corpus, outcomes: Mapping[str, Outcome]) -> GroupScores:
    scores: dict[str, float] = {}
    for _, result in outcomes.values():
        scores.update(result.scores)
    return {
        "n": len(corpus),
        "scores": scores,
        "status": {name: status for name, (status, _) in outcomes.items()},
        "text": _text_figures(corpus),
    }


def _text_figures(corpus: Corpus) -> TextFigures:
    n = len(corpus)
    references = [text for group in corpus.reference_tokens for text in group]
    return {
        "distinct_rate": len(set(corpus.caption_tokens)) / n,
        "empty_rate": sum(not text for text in corpus.caption_tokens) / n,
        "mean_words": sum(len(text.split()) for text in corpus.caption_tokens) / n,
        "mean_reference_words": sum(len(text.split()) for text in references) / len(references),
    }


def _per_image(
    predictions: Sequence[Prediction], outcomes: Sequence[Outcome]
) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = [
        {"image_id": prediction["image_id"], "dataset": prediction["dataset"]}
        for prediction in predictions
    ]
    for _, result in outcomes:
        for score, values in result.per_image.items():
            for entry, value in zip(entries, values):
                entry[score] = value
    return entries


def _signature(corpus: Corpus) -> str:
    """Says what the scores were made with, so that two sheets can be compared with good reason."""
    counts = [len(group) for group in corpus.references]
    span = f"{min(counts)}-{max(counts)}" if min(counts) != max(counts) else str(counts[0])
    parts = {
        "lavis_msmedcap": _version("lavis_msmedcap"),
        "pycocoevalcap": _version("pycocoevalcap"),
        "tokenizer": corpus.tokenizer,
        "n": str(len(corpus)),
        "references": span,
    }
    return "|".join(f"{key}:{value}" for key, value in parts.items())


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "source"
