"""ROUGE-L as in the COCO scores, with the longest common subsequence counted on bits."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_msmedcap.evaluation.metrics.corpus import Corpus, MetricResult

_BETA = 1.2  # recall counts a little more than precision


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence of two token sequences.

    One integer holds a row of the dynamic programme, a cleared bit where its value steps up; adding
    carries a step along, so a row costs one addition instead of one step per token.
    """
    full = (1 << len(first)) - 1
    places: dict[str, int] = {}
    for position, token in enumerate(first):
        places[token] = places.get(token, 0) | (1 << position)
    row = full
    for token in second:
        matched = row & places.get(token, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(first) - bin(row).count("1")


def rouge_l(corpus: Corpus) -> MetricResult:
    """Mean over the images of ROUGE-L against the best reference.

    Best precision and best recall are taken over the references separately, as published.
    """
    values = [
        _score(caption, references)
        for caption, references in zip(corpus.caption_tokens, corpus.reference_tokens)
    ]
    return MetricResult({"ROUGE_L": sum(values) / len(values)}, {"ROUGE_L": values})


def _score(caption: str, references: Sequence[str]) -> float:
    # An empty text is one empty token, as in the original: it matches only another empty one.
    tokens = caption.split(" ")
    targets = [reference.split(" ") for reference in references]
    common = [lcs_length(target, tokens) for target in targets]
    precision = max(common) / len(tokens)
    recall = max(length / len(target) for length, target in zip(common, targets))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
