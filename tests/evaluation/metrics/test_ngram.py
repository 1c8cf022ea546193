from __future__ import annotations

import math
import random

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from lavis_msmedcap.evaluation.metrics.corpus import Corpus, build_corpus
from lavis_msmedcap.evaluation.metrics.ngram import bleu, cider
from lavis_msmedcap.evaluation.metrics.rouge import rouge_l


def random_corpus(seed: int, images: int = 25) -> Corpus:
    """Captions over a small vocabulary, some of them empty, with one to four references."""
    generator = random.Random(seed)
    words = ["left", "right", "lung", "mass", "round", "oval", "small", "in", "the", "of", "no"]

    def caption(shortest: int) -> str:
        return " ".join(generator.choices(words, k=generator.randint(shortest, 12)))

    return build_corpus(
        [caption(0) for _ in range(images)],
        [[caption(1) for _ in range(generator.randint(1, 4))] for _ in range(images)],
    )


def test_bleu_by_hand() -> None:
    scores = bleu(build_corpus(["left lung mass seen"], [["left lung mass here"]])).scores
    # matches: 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, 0 of 1
    assert scores["BLEU-1"] == pytest.approx(3 / 4)
    assert scores["BLEU-2"] == pytest.approx(math.sqrt(3 / 4 * 2 / 3))
    assert scores["BLEU-3"] == pytest.approx((3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3))
    assert scores["BLEU-4"] < 1e-3


def test_bleu_punishes_short_captions_against_the_closest_reference() -> None:
    scores = bleu(build_corpus(["left lung"], [["left lung mass here", "x y z u v w"]])).scores
    assert scores["BLEU-1"] == pytest.approx(math.exp(1 - 4 / 2))


def test_bleu_clips_repeated_words() -> None:
    scores = bleu(build_corpus(["mass mass mass mass"], [["mass in the lung"]])).scores
    assert scores["BLEU-1"] == pytest.approx(1 / 4)


def test_cider_by_hand() -> None:
    references = [["left lung"], ["right liver"]]
    same = cider(build_corpus(["left lung", "right liver"], references))
    # words and pairs match completely, triples and quadruples do not exist: 10 * (1+1+0+0)/4
    assert same.scores["CIDEr"] == pytest.approx(5.0)
    half = cider(build_corpus(["left liver", "right liver"], references))
    # one of two words, equally rare: cosine 1/2; no pair: 10 * (1/2)/4
    assert half.per_image["CIDEr"] == pytest.approx([1.25, 5.0])
    swapped = cider(build_corpus(["right liver", "left lung"], references))
    assert swapped.scores["CIDEr"] == 0.0


def test_cider_gives_nothing_for_words_that_all_images_share() -> None:
    references = [["normal lung"], ["normal liver"]]
    scores = cider(build_corpus(["normal", "normal"], references)).scores
    assert scores["CIDEr"] == 0.0


def test_cider_of_one_image_is_zero_and_says_so() -> None:
    result = cider(build_corpus(["left lung"], [["left lung"]]))
    assert result.scores["CIDEr"] == 0.0
    assert "one image" in result.note


def test_cider_without_any_reference_word_is_zero_and_says_so() -> None:
    result = cider(build_corpus(["a", "b"], [[""], ["."]]))
    assert result.scores["CIDEr"] == 0.0
    assert result.per_image["CIDEr"] == [0.0, 0.0]
    assert "empty" in result.note


def test_rouge_by_hand() -> None:
    result = rouge_l(build_corpus(["left upper lung"], [["left x lung y"]]))
    # common subsequence "left lung": precision 2/3, recall 2/4, beta 1.2
    expected = (1 + 1.44) * (2 / 3) * (1 / 2) / (1 / 2 + 1.44 * 2 / 3)
    assert result.scores["ROUGE_L"] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_pycocoevalcap(seed: int) -> None:
    corpus = random_corpus(seed)
    captions = {i: [text] for i, text in enumerate(corpus.caption_tokens)}
    references = {i: list(group) for i, group in enumerate(corpus.reference_tokens)}
    bleu_values, _ = Bleu(4).compute_score(references, captions, verbose=0)
    cider_value, cider_values = Cider().compute_score(references, captions)
    rouge_value, rouge_values = Rouge().compute_score(references, captions)
    assert list(bleu(corpus).scores.values()) == pytest.approx(bleu_values, abs=1e-12)
    assert cider(corpus).scores["CIDEr"] == pytest.approx(cider_value, abs=1e-12)
    assert cider(corpus).per_image["CIDEr"] == pytest.approx(list(cider_values), abs=1e-12)
    assert rouge_l(corpus).scores["ROUGE_L"] == pytest.approx(rouge_value, abs=1e-12)
    assert rouge_l(corpus).per_image["ROUGE_L"] == pytest.approx(list(rouge_values), abs=1e-12)
