from __future__ import annotations

from lavis_msmedcap.evaluation import score_captions
from lavis_msmedcap.report import format_scores


def item(image_id: str, dataset: str, caption: str) -> dict:
    return {"image_id": image_id, "dataset": dataset, "caption": caption, "references": ["a mass"]}


def test_one_row_per_dataset_below_the_pool() -> None:
    sheet = score_captions([item("1", "roco", "a mass"), item("2", "medicat", "")])
    lines = format_scores(sheet).split("\n")
    assert [line.split()[0] for line in lines[1:4]] == ["all", "roco", "medicat"]
    head = lines[0].split()
    row = dict(zip(head, lines[2].split()[1:]))
    assert row["images"] == "1"
    assert row["ROUGE_L"] == "1.000"
    assert row["CIDEr"] == "0.000"
    assert row["words"] == "2.0"
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[-1] == sheet["signature"]


def test_notes_say_what_is_missing(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    sheet = score_captions([item("1", "roco", "x")], metrics=("CIDEr", "METEOR"))
    text = format_scores(sheet)
    assert "METEOR skipped (roco): no 'java'" in text
    assert "CIDEr (roco): CIDEr weighs words" in text
    assert "METEOR" not in text.split("\n")[0]
