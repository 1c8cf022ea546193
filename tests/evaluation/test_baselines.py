from __future__ import annotations

import random
import time

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.evaluation import best_constant_caption, dealt_to_others, score_captions
from lavis_msmedcap.evaluation.baselines import derangement


def medical_captions(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    kinds = ["Axial CT", "Chest radiograph", "Coronal MRI (T2)", "Ultrasound"]
    organs = ["liver", "lung", "kidney", "brain"]
    return [
        f"{generator.choice(kinds)} of the {generator.choice(organs)} with a "
        f"{generator.randint(5, 40)} mm mass in the {generator.choice(['left', 'right'])} "
        f"{generator.choice(['upper', 'middle', 'lower'])} part."
        for _ in range(count)
    ]


def predictions(count: int) -> list[dict]:
    captions = medical_captions(count, 0)
    return [
        {"image_id": str(i), "dataset": "roco", "caption": text, "references": [text]}
        for i, text in enumerate(captions)
    ]


def test_the_best_constant_caption_is_the_best_of_all() -> None:
    references = [[text] for text in medical_captions(25, 1)]
    found = best_constant_caption(references)
    by_hand = {}
    for caption in {text for group in references for text in group}:
        sheet = score_captions(
            [
                {"image_id": str(i), "dataset": "d", "caption": caption, "references": group}
                for i, group in enumerate(references)
            ],
            metrics=("CIDEr",),
        )
        by_hand[caption] = sheet["pooled"]["scores"]["CIDEr"]
    assert by_hand[found["caption"]] == pytest.approx(max(by_hand.values()))
    assert found["group"]["scores"]["CIDEr"] == pytest.approx(max(by_hand.values()))
    assert found["candidates"] == len(by_hand)


def test_given_candidates_replace_the_references() -> None:
    found = best_constant_caption(
        [["left lung mass"], ["left liver mass"]], candidates=["knee", "left lung", "knee."]
    )
    assert found["caption"] == "left lung"
    assert found["candidates"] == 2


def test_the_central_candidates_hold_a_good_caption() -> None:
    references = [[text] for text in medical_captions(150, 2)]
    best = best_constant_caption(references, max_candidates=1000)["group"]["scores"]["CIDEr"]
    few = best_constant_caption(references, max_candidates=20)
    assert few["candidates"] == 20
    assert few["group"]["scores"]["CIDEr"] >= 0.9 * best


def test_three_hundred_images_take_seconds() -> None:
    references = [[text] for text in medical_captions(300, 3)]
    started = time.process_time()
    best_constant_caption(references)
    assert time.process_time() - started < 10


def test_dealing_leaves_no_caption_in_place_and_keeps_the_words() -> None:
    items = predictions(40)
    dealt = dealt_to_others(items, seed=3)["group"]
    own = score_captions(items)["pooled"]
    assert own["scores"]["CIDEr"] == pytest.approx(10.0)
    assert dealt["scores"]["CIDEr"] < 3
    assert dealt["text"] == own["text"]


def test_dealing_two_captions_swaps_them() -> None:
    items = [
        {"image_id": "a", "dataset": "d", "caption": "left lung", "references": ["left lung"]},
        {"image_id": "b", "dataset": "d", "caption": "knee", "references": ["knee"]},
    ]
    assert dealt_to_others(items)["group"]["scores"]["ROUGE_L"] == 0.0


@pytest.mark.parametrize("n", [2, 3, 5, 100])
def test_derangements_have_no_fixed_point(n: int) -> None:
    for seed in range(20):
        order = derangement(n, seed)
        assert sorted(order) == list(range(n))
        assert all(order[i] != i for i in range(n))
    assert derangement(n, 1) == derangement(n, 1)


def test_derangements_of_three_are_equally_likely() -> None:
    drawn = [tuple(derangement(3, seed)) for seed in range(400)]
    assert set(drawn) == {(1, 2, 0), (2, 0, 1)}
    assert 140 < drawn.count((1, 2, 0)) < 260


def test_one_image_cannot_be_dealt() -> None:
    with pytest.raises(DataError, match="at least two"):
        dealt_to_others(predictions(1))


def test_no_image_has_no_best_caption() -> None:
    with pytest.raises(DataError, match="at least one image"):
        best_constant_caption([])
    with pytest.raises(DataError, match="no candidate"):
        best_constant_caption([["x"]], candidates=[])
