from __future__ import annotations

from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.datasets.summary import count_captions, describe_captions, report_facts
from lavis_msmedcap.processors.caption_processors import MSMedCapCaptionProcessor

RECORDS = [
    MedCapRecord(f"{i}.png", captions, str(i), "train", None, "roco", "medical")
    for i, captions in enumerate(
        [("Fig. 1. CT (arrow).", "CT\u00a0of the knee."), ("A scan [3] of a very long kind.",)]
    )
]


def test_every_caption_of_every_record_is_counted_once():
    counts = count_captions(RECORDS, MSMedCapCaptionProcessor(max_words=4))
    assert counts == {
        "captions": 3,
        "figure_prefix": 1,
        "pointers": 1,
        "spaces": 1,
        "citations": 1,
        "cut": 1,
    }
    told = describe_captions(counts, 4)
    assert told.startswith("of 3 training captions changed by ")
    assert "pointers 1" in told
    assert told.endswith("; cut at 4 words 1 (33.3%)")


def test_nothing_to_tell():
    assert describe_captions({"captions": 3}) == ""
    assert count_captions(RECORDS, str.lower) == {}
    assert describe_captions({}) == ""


def test_facts_of_a_report():
    report = ReadReport("roco")
    report.kept.update(train=3, val=0)
    report.dropped["without caption"] += 2
    assert report_facts(report) == {
        "read": 5,
        "kept": {"train": 3},
        "dropped": {"without caption": 2},
        "notes": {},
    }
