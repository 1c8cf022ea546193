"""BLEU and CIDEr, counted by the scorer classes of pycocoevalcap."""

from __future__ import annotations

from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer

from lavis_msmedcap.evaluation.metrics.corpus import Corpus, MetricResult

_ONE_IMAGE = (
    "CIDEr weighs words by how few images mention them: over one image it is 0 by definition"
)


def bleu(corpus: Corpus) -> MetricResult:
    """BLEU-1 to BLEU-4 over the whole corpus, with the closest reference length.

    Empty captions count as zero matched words; a corpus of them alone scores 0.
    """
    scorer = BleuScorer(n=4)
    for caption, references in zip(corpus.caption_tokens, corpus.reference_tokens):
        scorer += (caption, references)
    values, _ = scorer.compute_score(option="closest", verbose=0)
    return MetricResult({f"BLEU-{order}": float(value) for order, value in enumerate(values, 1)})


def cider(corpus: Corpus) -> MetricResult:
    """CIDEr (the variant with clipping and length penalty of the COCO scores; 10 is perfect).

    The weights come from the references of this very corpus, so values over parts of a corpus must
    not be averaged, and values over corpora of different size do not compare.
    """
    note = _ONE_IMAGE if len(corpus) == 1 else ""
    if not any(text for group in corpus.reference_tokens for text in group):
        zeros = [0.0] * len(corpus)
        return MetricResult({"CIDEr": 0.0}, {"CIDEr": zeros}, "every reference is empty")
    scorer = CiderScorer(n=4, sigma=6.0)
    for caption, references in zip(corpus.caption_tokens, corpus.reference_tokens):
        scorer += (caption, references)
    mean, values = scorer.compute_score()
    return MetricResult({"CIDEr": float(mean)}, {"CIDEr": [float(v) for v in values]}, note)
