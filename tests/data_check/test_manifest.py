from __future__ import annotations

import json
from dataclasses import replace

import pytest
from data_check_trees import manifest_lines, put, record

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.manifest import clean, read_manifest, write_manifest
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.table_files import is_manifest

ODD = "Line\u2028separator, tab\tand “quotes”, 0.37 cm."


def test_what_is_written_reads_back(tmp_path):
    records = [
        record(1, "train", "PMC1", caption=ODD),
        replace(record(2, "test"), captions=("One.", "Two."), domain="general"),
        record(3, "val", image="/data/00001.tar::bytes=512+34"),
    ]
    path = tmp_path / "new folder" / "clean.jsonl"
    other = write_manifest(path, clean(records, ["", "", ""]))
    assert is_manifest(path)
    assert list(read_manifest(path, "x", ReadReport("x"))) == records
    assert other.read_text(encoding="utf-8") == ""


def test_keys_are_those_of_a_caption_table(tmp_path):
    write_manifest(tmp_path / "clean.jsonl", clean([record(1, group="PMC1")], [""]))
    assert manifest_lines(tmp_path / "clean.jsonl") == [
        {
            "image": "/images/roco/1.png",
            "captions": ["Caption of image number 1."],
            "image_id": "roco1",
            "split": "train",
            "group_id": "PMC1",
            "source": "roco",
            "domain": "medical",
        }
    ]


def test_what_is_dropped_is_kept_beside_it(tmp_path):
    other = write_manifest(
        tmp_path / "clean.jsonl", clean([record(1), record(2)], ["", "image: truncated"])
    )
    assert other == tmp_path / "clean.dropped.jsonl"
    (entry,) = manifest_lines(other)
    assert (entry["image_id"], entry["reason"]) == ("roco2", "image: truncated")


def test_an_id_of_two_images_is_told_apart():
    records = [
        record(1, image_id="7"),
        record(2, image_id="7", source="mine"),
        record(1, image_id="7"),
        record(3, image_id="7", source="mine"),
    ]
    result = clean(records, [""] * 4)
    assert [r.image_id for r in result.kept] == ["7", "mine-7", "7", "mine-7-3"]
    assert result.renamed == 2


def test_nothing_is_overwritten(tmp_path):
    put(tmp_path / "clean.jsonl", "precious")
    with pytest.raises(DataError, match="exists; choose another name"):
        write_manifest(tmp_path / "clean.jsonl", clean([record(1)], [""]))
    assert (tmp_path / "clean.jsonl").read_text() == "precious"


GOOD = {
    **{"image": "images/a.png", "captions": [" One. "], "image_id": "a", "split": "train"},
    **{"group_id": None, "source": "roco", "domain": "medical"},
}


@pytest.mark.parametrize(
    ("line", "told"),
    [("{", "line 2 is not JSON"), ("[]", "holds no JSON object"), ('{"domain": "x"}', "is 'x'")],
)
def test_a_bad_line_is_named(tmp_path, line, told):
    if "domain" in line:
        line = json.dumps({**GOOD, **json.loads(line)})
    path = put(tmp_path / "m.jsonl", f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(DataError, match=r"m\.jsonl, line 2") as caught:
        list(read_manifest(path, "x", ReadReport("x")))
    assert told in str(caught.value)


def test_names_are_relative_to_the_manifest_and_what_is_left_out_is_counted(tmp_path):
    lines = [
        GOOD,
        {**GOOD, "image": "b.png", "captions": [" ", None]},
        {**GOOD, "image": "c.png", "split": "dev2"},
        {**GOOD, "image": "d.png", "image_id": "d", "source": "", "group_id": "p1"},
    ]
    path = put(tmp_path / "m.jsonl", "".join(json.dumps(line) + "\r\n" for line in lines))
    assert is_manifest(path)
    report = ReadReport("x")
    first, last = read_manifest(path, "x", report)
    assert (first.image, first.captions) == (str(tmp_path / "images/a.png"), ("One.",))
    assert (first.source, first.group_id) == ("roco", None)
    assert (last.source, last.group_id) == ("x", "p1")
    assert report.dropped == {"without caption": 1, "of split 'dev2'": 1}
