from __future__ import annotations

import logging
from types import SimpleNamespace

from lavis_msmedcap.models.text_lengths import TextLength
from lavis_msmedcap.runners.data_summary import data_summary
from lavis_msmedcap.runners.long_texts import count_long_texts


class Model:
    max_txt_len = 6

    def text_length(self) -> TextLength:
        return TextLength(str.split, extra=2)


def dataset(*captions: tuple[str, ...]) -> SimpleNamespace:
    records = [SimpleNamespace(captions=of_image) for of_image in captions]
    return SimpleNamespace(records=records, text_processor=lambda text: text.removesuffix(" x"))


def test_captions_that_are_cut_are_counted_by_dataset(caplog) -> None:
    data = {
        "roco": dataset(("one two three four five", "one two three four x"), ("one two",)),
        "coco": dataset(("a b c d",)),
        "vg": SimpleNamespace(annotation=[]),
    }
    with caplog.at_level(logging.INFO):
        counts = count_long_texts(Model(), data)
    assert counts == {"roco": 1, "coco": 0}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("roco: 1 of 3 training captions (33.3%) are longer than model.max_txt")
    train = {"roco": {"train": range(2)}}
    assert data_summary(train, {}, counts)["roco"]["longer_than_max_txt_len"] == 1


def test_a_model_that_does_not_tell_its_limit() -> None:
    assert count_long_texts(object(), {"roco": dataset(("a",))}) == {}
