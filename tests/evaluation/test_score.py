from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.evaluation import METRICS, score_captions
from lavis_msmedcap.evaluation.metrics.corpus import Corpus, Metric, MetricResult
from lavis_msmedcap.evaluation.score import score_names


def prediction(image_id: str, caption: str, *references: str, dataset: str = "roco") -> dict:
    return {
        "image_id": image_id,
        "dataset": dataset,
        "caption": caption,
        "references": list(references) or ["left lung mass"],
    }


THREE = [
    prediction("a", "left lung mass", "left lung mass"),
    prediction("b", "right liver cyst", "right liver cyst", dataset="medicat"),
    prediction("c", "normal knee seen", "something else here"),
]


def test_names_of_scores_are_known_before() -> None:
    assert score_names() == list(score_captions(THREE)["pooled"]["scores"])


def test_pooled_and_per_dataset_scores() -> None:
    sheet = score_captions(THREE)
    assert set(sheet["per_dataset"]) == {"roco", "medicat"}
    assert sheet["pooled"]["n"] == 3
    assert sheet["per_dataset"]["roco"]["n"] == 2
    assert sheet["pooled"]["scores"]["ROUGE_L"] == pytest.approx(2 / 3)
    assert sheet["per_dataset"]["roco"]["scores"]["ROUGE_L"] == pytest.approx(1 / 2)
    assert sheet["per_dataset"]["medicat"]["scores"]["BLEU-1"] == pytest.approx(1.0)


def test_values_per_image_keep_order_and_ids() -> None:
    entries = score_captions(THREE)["per_image"]
    assert [entry["image_id"] for entry in entries] == ["a", "b", "c"]
    assert [entry["ROUGE_L"] for entry in entries] == [1.0, 1.0, 0.0]
    assert entries[0]["CIDEr"] == pytest.approx(7.5)  # words, pairs and triples, no quadruple
    assert entries[2]["CIDEr"] == 0.0


def test_the_sheet_is_json_and_signed() -> None:
    sheet = score_captions(THREE)
    assert json.loads(json.dumps(sheet, allow_nan=False)) == sheet
    assert "tokenizer:ptb-py" in sheet["signature"]
    assert "|n:3|references:1" in sheet["signature"]


def test_a_line_break_in_one_caption_changes_no_other() -> None:
    clean = score_captions(THREE)
    for mark in ("\n", "\r\n", "\u2028", "\f"):
        broken = [dict(THREE[0], caption=f"left{mark}lung mass"), *THREE[1:]]
        assert score_captions(broken)["per_image"] == clean["per_image"]


def test_a_single_dataset_is_its_own_pool() -> None:
    sheet = score_captions(THREE[::2])
    assert sheet["per_dataset"] == {"roco": sheet["pooled"]}


def test_figures_of_the_text() -> None:
    text = score_captions(
        [prediction("a", "lung", "x y"), prediction("b", "Lung."), prediction("c", "")]
    )["pooled"]["text"]
    assert text["distinct_rate"] == pytest.approx(2 / 3)
    assert text["empty_rate"] == pytest.approx(1 / 3)
    assert text["mean_words"] == pytest.approx(2 / 3)
    assert text["mean_reference_words"] == pytest.approx(8 / 3)


def test_empty_captions_and_references_are_scored() -> None:
    sheet = score_captions([prediction("a", "", "x"), prediction("b", "x", "")])
    assert {status["state"] for status in sheet["pooled"]["status"].values()} == {"ok"}
    assert sheet["pooled"]["scores"]["CIDEr"] == 0.0
    assert sheet["pooled"]["scores"]["ROUGE_L"] == 0.0


def test_one_image_says_why_its_cider_is_zero() -> None:
    status = score_captions(THREE[:1])["pooled"]["status"]["CIDEr"]
    assert status["state"] == "ok"
    assert "one image" in status["reason"]


def test_missing_java_skips_meteor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    sheet = score_captions(THREE, metrics=("BLEU", "METEOR"))
    for group in (sheet["pooled"], *sheet["per_dataset"].values()):
        assert group["status"]["METEOR"]["state"] == "skipped"
        assert "java" in group["status"]["METEOR"]["reason"]
        assert "METEOR" not in group["scores"]
        assert "BLEU-4" in group["scores"]


def test_a_metric_that_breaks_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    def broken(corpus: Corpus) -> MetricResult:
        if len(corpus) == 1:
            raise RuntimeError("no luck")
        return MetricResult({"LUCK": 1.0})

    @contextmanager
    def opened() -> Iterator[Metric]:
        try:
            yield broken
        finally:
            closed.append(True)

    monkeypatch.setitem(METRICS, "LUCK", opened)
    sheet = score_captions(THREE, metrics=("LUCK", "CIDEr"))
    assert sheet["pooled"]["scores"]["LUCK"] == 1.0
    assert sheet["per_dataset"]["medicat"]["status"]["LUCK"] == {
        "state": "failed",
        "reason": "RuntimeError: no luck",
    }
    assert sheet["per_dataset"]["medicat"]["status"]["CIDEr"]["state"] == "ok"
    assert closed == [True]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 7}, "'image_id' must be a string, found 7"),
        ({"caption": None}, "'caption' must be a string"),
        ({"references": []}, "'references' must be a non-empty list"),
        ({"references": "left lung"}, "'references' must be a non-empty list"),
        ({"references": [None]}, "'references' must be a non-empty list"),
        ({"image_id": "c"}, "image 'c' of dataset 'roco' occurs 2 times"),
    ],
)
def test_malformed_predictions_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_captions([{**THREE[0], **change}, *THREE[1:]])


def test_many_faults_are_counted_and_not_all_listed() -> None:
    with pytest.raises(DataError, match="and 15 more"):
        score_captions([{**THREE[0], "caption": 1} for _ in range(20)])


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(DataError, match="no predictions"):
        score_captions([])


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ValueError, match="SPICE"):
        score_captions(THREE, metrics=("SPICE",))
    with pytest.raises(ValueError, match="unknown tokenizer 'moses'"):
        score_captions(THREE, tokenizer="moses")


def test_the_same_id_in_two_datasets_is_two_images() -> None:
    twins = [prediction("a", "x", "x"), prediction("a", "x", "x", dataset="medicat")]
    assert score_captions(twins)["pooled"]["n"] == 2
