from __future__ import annotations

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.columns import Columns, choose_columns


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["image", "caption"], Columns("image", ("caption",))),
        (["ID", "Caption"], Columns("ID", ("Caption",))),
        (["id", "name", "caption"], Columns("name", ("caption",))),
        (["Image Path", "Report", "Split"], Columns("Image Path", ("Report",), split="Split")),
        (["imagePath", "text"], Columns("imagePath", ("text",))),
        (
            ["image", "image_id", "caption", "cui"],
            Columns("image", ("caption",), image_id="image_id"),
        ),
        (["image_id", "caption"], Columns("image_id", ("caption",))),
        (
            ["PatientID", "dicom", "findings", "id"],
            Columns("dicom", ("findings",), group_id="PatientID"),
        ),
    ],
)
def test_usual_names(found, expected):
    assert choose_columns(found, {}, "t.csv", "key") == expected


def test_told_columns_win_and_null_means_none():
    found = ["image", "caption", "image_id", "split", "patient"]
    given = {"image": None, "caption": ["caption", "split"], "image_id": None, "split": None}
    columns = choose_columns(found, given, "t.csv", "key")
    assert columns == Columns("image", ("caption", "split"), group_id="patient")
    assert columns.all == ("image", "caption", "split", "patient")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"image": "scan", "caption": "titel"},
            r"t\.csv has no column 'titel' \(key\.caption\).*It has: scan, titles",
        ),
        ({"image": "scan"}, r"hold the caption; it has: scan, titles\. Set key\.caption"),
        ({}, r"hold the image; it has: scan, titles\. Set key\.image"),
    ],
)
def test_one_clear_error_lists_what_there_is(given, message):
    with pytest.raises(DataError, match=message):
        choose_columns(["scan", "titles"], given, "t.csv", "key")
