from __future__ import annotations

import random
from dataclasses import replace

import pytest

from lavis_msmedcap.evaluation.metrics.constant import ConstantCider
from lavis_msmedcap.evaluation.metrics.corpus import build_corpus
from lavis_msmedcap.evaluation.metrics.ngram import cider


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_scorer_of_pycocoevalcap(seed: int) -> None:
    generator = random.Random(seed)
    words = ["left", "right", "lung", "mass", "mass", "lesion", "in", "the", "of"]

    def text() -> str:
        return " ".join(generator.choices(words, k=generator.randint(0, 15)))

    references = [[text() for _ in range(generator.randint(1, 3))] for _ in range(20)]
    corpus = build_corpus([""] * 20, references)
    captions = ["", "unknown words only here", "lung", *(text() for _ in range(5))]
    captions += [group[0] for group in references[:5]]
    expected = [
        cider(replace(corpus, caption_tokens=(caption,) * 20)).scores["CIDEr"]
        for caption in captions
    ]
    scores = ConstantCider(corpus.reference_tokens).score(captions)
    assert scores.tolist() == pytest.approx(expected, abs=1e-9)


def test_the_most_central_caption_is_the_commonest() -> None:
    references = [["round mass in the lung"]] * 5 + [["normal liver"], ["oval mass of the knee"]]
    values = ConstantCider(references).centrality(
        ["round mass in the lung", "oval mass of the knee", "unheard of", ""]
    )
    assert values[0] > values[1] > values[2] > values[3] == 0.0
