from __future__ import annotations

from dataclasses import replace

import pytest
from data_check_trees import record

from lavis_msmedcap.data_check import captions as captions_module
from lavis_msmedcap.data_check.captions import (
    BREAKS,
    CUT_TOKENS,
    CUT_WORDS,
    EMPTY,
    FOREIGN,
    GARBLED,
    LONG,
    NON_ASCII,
    REPEATED,
    SHORT,
    SIDE,
    CaptionRules,
    check_captions,
    oddities,
)
from lavis_msmedcap.datasets.caption_text import squeeze


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Axial CT of the abdomen.", []),
        ("\u200b\u00a0", [EMPTY]),
        ("TC.", [SHORT]),
        ("Axial CT of\r\nthe abdomen.", [BREAKS]),
        ("Axial CT of the abdomen.\n", []),
        ("Axial CT of\u2028the abdomen.", [BREAKS, NON_ASCII]),
        ("A lesion of the lobe, lefty.", []),
        ("A lesion of the LEFT lobe.", [SIDE]),
        ("Bilateral effusion is seen.", [SIDE]),
        ("A lesion of 5 \u00b5m seen.", [NON_ASCII]),
        ("A Kaposi\u00e2\u20ac\u2122s sarcoma.", [GARBLED, NON_ASCII]),
        ("L\u00c3\u00a9sion of the liver.", [GARBLED, NON_ASCII]),
        ("The \ufffd lesion.", [GARBLED, NON_ASCII]),
        ("Radiographie du thorax montrant une opacite", [FOREIGN]),
        ("Appearance of a nodule de novo, la Roche", []),
        ("word " * 151, [LONG]),
    ],
)
def test_what_is_odd_about_a_caption(caption, expected):
    assert oddities(caption, squeeze(caption), 0) == expected


def test_lengths_and_shares_are_of_what_training_reads():
    texts = ["one", "one two three four", "one two three four five six"]
    records = [record(i, caption=text) for i, text in enumerate(texts)]
    rules = CaptionRules(
        prepare=lambda text: text.replace("one", "one more"),
        max_words=6,
        max_tokens=10,
        count_tokens=lambda text: 2 * len(text.split()) - 1,
        tokens_of="a test",
    )
    check = check_captions(records, {"roco": rules})
    (stats,) = check.stats
    assert stats.words == [2, 5, 7, 7, 7]  # of 2, 5 and 7
    assert stats.tokens == [4, 9, 11, 11, 11]  # of 3, 9 and 11, the last one of 6 words
    assert stats.above == {CUT_WORDS: pytest.approx(1 / 3), CUT_TOKENS: pytest.approx(1 / 3)}
    assert check.odd[CUT_WORDS] == check.odd[CUT_TOKENS] == [2]


def test_repeated_captions_count_images_not_captions():
    same = "Axial CT of the abdomen."
    records = [
        record(1, caption=same),
        replace(record(2), captions=("Another one entirely.", "axial  CT of the ABDOMEN.")),
        record(3, source="coco", caption=same),
        replace(record(4), captions=("Twice on one image.", "twice on one image.")),
    ]
    check = check_captions(records, {})
    assert check.odd[REPEATED] == [0, 1]
    assert [stats.kinds[REPEATED] for stats in check.stats] == [2, 0]


def test_many_captions_are_tokenized_as_a_sample(monkeypatch):
    monkeypatch.setattr(captions_module, "TOKEN_SAMPLE", 20)
    records = [record(i) for i in range(100)]
    rules = CaptionRules(count_tokens=lambda text: len(text.split()), max_tokens=3)
    (stats,) = check_captions(records, {"roco": rules}).stats
    assert (stats.captions, stats.counted, stats.above[CUT_TOKENS]) == (100, 20, 1.0)
