from __future__ import annotations

import json

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.medicat import read_medicat
from lavis_msmedcap.datasets.readers.report import ReadReport

A, B, C = ("a" * 40, "b" * 40, "c" * 40)


def _jsonl(medicat_tree):
    return next((medicat_tree / "release").glob("*.jsonl"))


def test_captions_groups_and_files(medicat_tree):
    report = ReadReport("medicat")
    records = list(read_medicat(medicat_tree, report=report))
    assert [r.captions for r in records] == [
        ("Figure 1. Caption of 1-Figure1-1.png.",),
        ("From the PDF.",),
        ("Figure 1. Caption of 4-Figure2-1.png.",),
        ("Figure 1. Caption of 5-Figure1-1.png.",),
    ]
    assert [r.group_id for r in records] == [A, A, B, C]
    assert records[0].image_id == f"{A}_1-Figure1-1"
    assert records[0].image == str(medicat_tree / "release" / "figures" / f"{A}_1-Figure1-1.png")
    assert report.dropped == {"without caption": 1, "repeated figure": 1}
    assert report.notes == {"captions from s2orc_caption": 1}
    assert report.n_read == 6


@pytest.mark.parametrize("place", ["root", "release", "file"])
def test_root_may_be_three_things(medicat_tree, place):
    paths = {
        "root": medicat_tree,
        "release": medicat_tree / "release",
        "file": _jsonl(medicat_tree),
    }
    assert len(list(read_medicat(paths[place]))) == 4


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"radiology": True}, ["1", "2", "5"]),
        ({"radiology": False}, ["4"]),
        ({"scope": True}, ["5"]),
        ({"radiology": True, "scope": False}, ["1", "2", "5"]),
    ],
)
def test_filters(medicat_tree, filters, expected):
    records = list(read_medicat(medicat_tree, **filters))
    assert [r.image_id.split("_")[1][0] for r in records] == expected


def test_unsafe_uri_is_refused_with_its_line(medicat_tree, make):
    entry = {"pdf_hash": "x/..", "fig_uri": "/../../../etc/passwd", "s2_caption": "Hm."}
    path = _jsonl(medicat_tree)
    make.write(path, "\n" + json.dumps(entry) + "\n")
    with pytest.raises(DataError, match=r"line 2.*refused"):
        list(read_medicat(medicat_tree))


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"pdf_hash": "a', "not JSON"), ("[1]", "no JSON object"), ('{"caption": "x"}', "lacks")],
)
def test_broken_lines_are_named(medicat_tree, make, line, message):
    make.write(_jsonl(medicat_tree), line)
    with pytest.raises(DataError, match=f"line 1 .*{message}"):
        list(read_medicat(medicat_tree))


def test_missing_release(tmp_path):
    with pytest.raises(DataError, match=r"datasets\.medicat\.build_info\.root"):
        list(read_medicat(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"expected release/s2_full_figures"):
        list(read_medicat(tmp_path))


def test_two_release_files_are_ambiguous(medicat_tree, make):
    make.write(medicat_tree / "release" / "s2_full_figures_copy.jsonl", "")
    with pytest.raises(DataError, match="several"):
        list(read_medicat(medicat_tree))


def test_order_of_the_caption_fields_and_type_of_figure(medicat_tree, make):
    common = {"pdf_hash": A, "s2_caption": "Figure 1. Short.", "radiology": None}
    entries = [
        {**common, "fig_uri": "1.png", "s2orc_caption": None, "predicted_type": "Medical images"},
        {**common, "fig_uri": "2.png", "s2orc_caption": "Long.", "predicted_type": "Plots"},
        {**common, "fig_uri": "3.png", "s2orc_caption": "Full text.", "s2orc_references": ["No."]},
    ]
    make.write(_jsonl(medicat_tree), "\n".join(map(json.dumps, entries)))
    report = ReadReport("medicat")
    fields = ["s2orc_caption", "s2_caption"]
    records = list(read_medicat(medicat_tree, caption_fields=fields, report=report))
    assert [r.captions[0] for r in records] == ["Figure 1. Short.", "Long.", "Full text."]
    assert report.notes == {"captions from s2_caption": 1}
    report = ReadReport("medicat")
    (record,) = read_medicat(medicat_tree, predicted_type="Medical images", report=report)
    assert record.image_id == f"{A}_1"
    assert report.dropped == {"filtered by predicted_type": 2}
    assert len(list(read_medicat(medicat_tree, radiology=False))) == 3


def test_a_file_beside_the_release_is_told_by_its_keys(medicat_tree, make):
    entry = {"roco_image_id": "ROCO_00001", "gorc_references": []}
    make.write(_jsonl(medicat_tree), json.dumps(entry))
    with pytest.raises(DataError, match=r"it has roco_image_id, gorc_references"):
        list(read_medicat(medicat_tree))
