"""Tables as people have them, with dirt; counts by reason as counted by hand."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.rows import TableOptions
from lavis_msmedcap.datasets.readers.selection import (
    drop_missing_images,
    drop_short_captions,
    merge_repeated,
)
from lavis_msmedcap.datasets.readers.table import as_text, read_table


@pytest.fixture
def scans(tmp_path, make):
    for number in range(1, 7):
        make.save(tmp_path / "scans" / f"{number}.png", seed=number)
    (tmp_path / "scans" / "7.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return tmp_path / "scans"


def _csv(rows, **dialect):
    buffer = io.StringIO()
    csv.writer(buffer, **dialect).writerows(rows)
    return buffer.getvalue()


def _read(path, *arguments, **keywords):
    report = ReadReport("caption_table")
    return list(read_table(path, *arguments, report=report, **keywords)), report


ROWS = [
    ["image", "caption"],
    ["scans/1.png", "CT of the liver, portal phase."],
    ["scans/2.png", 'A "halo" sign.\nSecond line; third.'],
    ["scans/3.png", "Größe 12 mm, 37 °C €"],
]


@pytest.mark.parametrize(
    ("dialect", "encoding", "suffix"),
    [
        ({}, "utf-8", ".csv"),
        ({"lineterminator": "\n"}, "utf-8-sig", ".csv"),
        ({"delimiter": ";"}, "utf-8", ".csv"),
        ({"delimiter": ";"}, "cp1252", ".csv"),
        ({"delimiter": "\t"}, "utf-16", ".tsv"),
        ({"delimiter": "\t"}, "utf-16-le", ".txt"),
        ({"delimiter": "|", "quoting": csv.QUOTE_ALL}, "utf-8", ".csv"),
    ],
)
def test_text_tables_are_read_as_they_were_written(scans, make, dialect, encoding, suffix):
    table = make.write(scans.parent / f"t{suffix}", _csv(ROWS, **dialect), encoding=encoding)
    records, report = _read(table)
    assert [(r.image, *r.captions) for r in records] == [
        (str(scans.parent / name), caption) for name, caption in ROWS[1:]
    ]
    assert [r.image_id for r in records] == ["scans/1.png", "scans/2.png", "scans/3.png"]
    assert {r.split for r in records} == {"train"}
    noted = {"t.csv read as cp1252, not being UTF-8": 1} if encoding == "cp1252" else {}
    assert report.notes == noted
    assert sum(report.dropped.values()) == 0


def test_quotation_marks_of_a_tab_separated_file_are_text(scans, make):
    lines = ["image\tcaption", '1.png\t"Snow cap" sign', '2.png\t5" catheter', "3.png\tPlain text"]
    table = make.write(scans / "t.tsv", "\n".join(lines))
    records, _ = _read(table)
    assert [r.captions[0] for r in records] == ['"Snow cap" sign', '5" catheter', "Plain text"]
    options = TableOptions(quotes=False, separator="\t", encoding="utf-8", format="tsv")
    assert _read(table, options=options)[0] == records


def test_malformed_quotes_never_shift_captions(scans, make):
    """They are text where every row fits without them, and else an error."""
    text = 'image,caption\n1.png,Text\n2.png,"never closed\n3.png,The "halo" sign\n'
    records, report = _read(make.write(scans / "t.csv", text))
    lines = dict(line.split(",", 1) for line in text.split("\n")[1:] if line)
    assert {r.image_id: r.captions[0] for r in records} == lines
    assert not report.dropped
    for content in (
        'image,caption\n1.png,"CT, contrast"\n2.png,"The "halo" sign"\n',
        'image,caption\n1.png,"CT, contrast"\n2.png,"never closed\n3.png,Text\n',
        'image,caption\n1.png,"CT, contrast"\n2.png,bare\rreturn\n',
    ):
        table = make.write(scans / "t.csv", content)
        with pytest.raises(DataError, match=r"t\.csv, line \d or after: .*quotes: false"):
            _read(table)


@pytest.mark.parametrize("stray", [400, 4900])
def test_a_stray_quotation_mark_swallows_no_rows(make, tmp_path, stray):
    """In the head that the layout is guessed from, or far behind it."""
    text = "Axial CT number {} of the chest with a small nodule, seen in the upper lobe twice."
    rows = [f"{i}.png\t{text.format(i)}" for i in range(5000)]
    rows[stray] = f'{stray}.png\t"Target sign of the bowel'
    rows[stray + 60] = f'{stray + 60}.png\tNeedle length 5"'
    table = make.write(tmp_path / "t.tsv", "\n".join(["image\tcaption", *rows]) + "\n")
    records, report = _read(table)
    assert len(records) == report.n_read == 5000
    assert records[stray].captions == ('"Target sign of the bowel',)
    assert records[stray + 60].captions == ('Needle length 5"',)


def test_a_stray_quotation_mark_beside_real_quotes_is_told(make, tmp_path):
    rows = ["image,caption", '0.png,"CT, contrast"', "1.png,Plain", '2.png,"Target sign']
    rows += ["3.png,Needle", '4.png,Length 5"', "5.png,Plain"]
    table = make.write(tmp_path / "t.csv", "\n".join(rows))
    with pytest.raises(DataError, match=r"line 4: a field .* 3 lines, to line 6.*quotes: false"):
        _read(table)
    records, _ = _read(table, options=TableOptions(quotes=True))
    assert [r.image_id for r in records] == ["0.png", "1.png", "2.png", "5.png"]
    assert records[2].captions == ("Target sign\n3.png,Needle\n4.png,Length 5",)


def test_a_report_of_several_lines_is_one_field(make, tmp_path):
    reports = ["Heart normal.\nNo effusion, no pneumothorax.", "Liver:\n2 cysts, 3.5 cm\n1.5,2.5"]
    rows = [["image", "caption"], *([f"{i}.png", report] for i, report in enumerate(reports))]
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        table = make.write(tmp_path / "t.csv", _csv(rows, quoting=quoting))
        assert [r.captions[0] for r in _read(table)[0]] == reports


def test_dirt_is_counted_by_reason(scans, make):
    rows = [
        ["Image Path", "Report", "Set", "PatientID", "age"],
        ["1.png", "CT of the liver.", "train", "P1", "61"],
        ["2.png", "", "train", "P1", ""],  # without caption
        ["3.png", "NaN", "train", "P2", ""],  # without caption, as pandas writes it
        ["", "A caption without image.", "train", "P2", ""],  # without image
        ["4.png", "MRI of the knee.", "Validation", "", ""],
        ["5.png", "Ultrasound.", "TEST", "12.0", ""],
        ["6.png", "X-ray of the chest.", "holdout", "P3", ""],  # of a split that is none
        ["6.png", "X-ray of the chest.", "", "P3", ""],  # without split
        ["1.png", "CT of the liver.", "train", "P1", ""],  # the same again
        ["1.png", "Axial section, venous phase.", "train", "P1", ""],  # a second caption
        ["7", "DICOM without extension.", "test", "P4", ""],
        ["99.png", "Missing image of a foot.", "train", "P5", ""],
        ["6.png", "No.", "train", "P6", ""],  # too short to train on
        ["too", "few"],
        [],
    ]
    records, report = _read(make.write(scans / "t.csv", _csv(rows)), split=None)
    assert report.dropped == {
        "without caption": 2,
        "without image": 1,
        "of split 'holdout'": 1,
        "without split": 1,
        "with another number of fields than the header": 1,
    }
    assert report.kept == {"train": 5, "val": 1, "test": 2}
    assert report.n_read == 14
    train = [r for r in records if r.split == "train"]
    train = merge_repeated(train, report)
    train = drop_short_captions(train, 2, report)
    train = drop_missing_images(train, 0.5, "key", report)
    assert [(r.image_id, r.captions, r.group_id) for r in train] == [
        ("1.png", ("CT of the liver.", "Axial section, venous phase."), "P1")
    ]
    assert report.kept["train"] == 1
    assert report.dropped["repeated image"] == 2
    assert report.dropped["with captions of fewer than 2 words"] == 1
    assert report.dropped["image missing"] == 1
    assert report.notes == {
        "repeated images with another caption, which was added": 1,
        "rows with image from 'Image Path', caption from 'Report', split from 'Set', "
        "group_id from 'PatientID', guessed": 14,
        "cells that say NA, unknown or the like, read as empty": 1,
    }
    assert report.n_read == 14
    val, *test = [r for r in records if r.split != "train"]
    assert (val.image_id, val.group_id) == ("4.png", None)
    assert [(r.image, r.image_id, r.group_id) for r in test] == [
        (str(scans / "5.png"), "5.png", "12.0"),
        (str(scans / "7.dcm"), "7", "P4"),
    ]
    short = drop_short_captions(test, 2, report)
    assert short == test
    assert report.notes["test references of fewer than 2 words, kept"] == 1


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('["One scan.", "Another text."]', ("One scan.", "Another text.")),
        ("['One scan.', 'It\\'s another.']", ("One scan.", "It's another.")),
        ("[1] is no list of captions", ("[1] is no list of captions",)),
        ('["broken', ('["broken',)),
        ("['a', 1]", ("['a', 1]",)),
    ],
)
def test_a_cell_may_be_a_list_of_captions(scans, make, cell, expected):
    table = make.write(scans / "t.csv", _csv([["image", "caption"], ["1.png", cell]]))
    assert _read(table)[0][0].captions == expected


def test_json_tables(scans, make):
    entries = [
        {"img": "1", "text": ["First text.", "Second text.", None], "subject": 4711},
        {"img": "2.png", "text": "Third text.", "subject": None},
        {"img": "3.png"},
        {"img": None, "text": "No image."},
        {"img": "4.png", "text": 12},
    ]
    lines = make.write(scans / "t.jsonl", "\ufeff" + "\r\n".join(map(json.dumps, entries)) + "\n\n")
    listed = make.write(scans / "t.json", json.dumps(entries, indent=1))
    for table in (lines, listed):
        records, report = _read(table)
        assert [(r.image_id, r.captions, r.group_id) for r in records] == [
            ("1", ("First text.", "Second text."), "4711"),
            ("2.png", ("Third text.",), None),
        ]
        assert records[0].image == str(scans / "1.png")
        assert report.dropped == {"without caption": 2, "without image": 1}
    with pytest.raises(DataError, match="coco2014_caption"):
        _read(
            make.write(scans / "coco.json", json.dumps({"images": [], "annotations": []}, indent=1))
        )


def test_imageclef(scans, make):
    """The challenge's file: an ID without extension, and the caption."""
    table = make.write(scans.parent / "captions.csv", "ID,Caption\n3,One caption here\n7,Another\n")
    records, _ = _read(table, scans)
    assert [(r.image_id, r.image) for r in records] == [
        ("3", str(scans / "3.png")),
        ("7", str(scans / "7.dcm")),
    ]


def test_columns_as_told(scans, make):
    rows = [["id", "file", "findings", "impression", "image_id"], ["7", "1.png", "A.", "B.", "x"]]
    table = make.write(scans / "t.csv", _csv(rows))
    (record,), _ = _read(table)
    assert (record.image_id, record.captions) == ("x", ("A.",))
    told = {"image": "id", "caption": ["findings", "impression"], "image_id": None}
    (record,), _ = _read(table, columns=told)
    assert (record.image_id, record.image) == ("7", str(scans / "7.dcm"))
    assert record.captions == ("A.", "B.")


def test_reading_twice_gives_the_same(scans, make):
    table = make.write(scans.parent / "t.csv", _csv(ROWS))
    assert _read(table)[0] == _read(table)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a row that names the columns"),
        (b"image,image\n1,2\n", "each once"),
        (
            b"picture,words\n1.png,Text\n",
            r"hold the image; it has: picture, words\. Set .*columns\.image",
        ),
        (b"image,words\n1.png,Text\n", r"hold the caption; it has: image, words"),
        (b"image,caption\n../1.png,Text\n", r"line 2: image \.\./1\.png leads out of"),
        (b"image,caption\nhttps://x/1.png,Text\n", "line 2: image https://x/1.png is an address"),
        (b"PK\x03\x04rest", "an Excel or zip file; save it as CSV first"),
        (b"\x1f\x8brest", "packed; unpack it first"),
        (b'{"image": "1.png", "caption": "x"}\n[1]\n', "line 2 holds no JSON object"),
        (b"image,caption\n1.png,\x81\x8d\n", "neither UTF-8 nor UTF-16 nor cp1252"),
    ],
)
def test_what_cannot_be_read_is_told(scans, content, message):
    table = scans / "t.csv"
    table.write_bytes(content)
    with pytest.raises(DataError, match=message):
        _read(table)


def test_settings_that_do_not_fit_are_told(scans, make):
    table = make.write(scans / "t.csv", "image,caption\n1.png,Größe\n")
    with pytest.raises(DataError, match=r"not ascii: .*set encoding"):
        _read(table, options=TableOptions(encoding="ascii"))
    with pytest.raises(DataError, match=r"no column 'capton' \(.*columns\.caption\); did you mean"):
        _read(table, columns={"caption": "capton"})
    with pytest.raises(DataError, match=r"build_info\.images"):
        _read(table, scans / "nowhere")
    with pytest.raises(DataError, match=r"build_info\.table"):
        _read(scans / "nowhere.csv")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (12.0, "12"), (1.5, "1.5"), (float("nan"), ""), (None, ""), (" a ", "a"), ("NaN", ""),
        (True, "True"), (7, "7"), ([1], ""),
    ],
)  # fmt: skip
def test_cells_as_text(cell, text):
    assert as_text(cell) == text


@pytest.mark.parametrize("word", ["NA", "n/a", "None", "null", "nan", " - ", "Unknown", "#N/A"])
def test_words_for_nothing_are_neither_patient_nor_caption(scans, make, word):
    rows = [
        ["image", "findings", "impression", "patient_id"],
        ["1.png", "A nodule.", word, word],
        ["2.png", word, word, "P2"],
        ["3.png", "Unknown mass.", "", "P-1"],
    ]
    columns = {"caption": ["findings", "impression"]}
    records, report = _read(make.write(scans / "t.csv", _csv(rows)), columns=columns)
    assert [(r.image_id, r.captions, r.group_id) for r in records] == [
        ("1.png", ("A nodule.",), None),
        ("3.png", ("Unknown mass.",), "P-1"),
    ]
    assert report.dropped == {"without caption": 1}
    assert report.notes["cells that say NA, unknown or the like, read as empty"] == 4
    listed = [{"image": "1.png", "caption": [word, "A nodule."]}]
    (record,), _ = _read(make.write(scans / "t.json", json.dumps(listed)))
    assert record.captions == ("A nodule.",)


def test_rows_may_tell_their_domain(scans, make):
    rows = [
        ["image", "caption", "Domain"],
        ["1.png", "A scan.", "medical"],
        ["2.png", "A dog.", "General"],
        ["3.png", "Another.", ""],
    ]
    table = make.write(scans / "t.csv", _csv(rows))
    assert [r.domain for r in _read(table)[0]] == ["medical", "general", "medical"]
    assert {r.domain for r in _read(table, columns={"domain": None})[0]} == {"medical"}
    rows[2][2] = "chest"
    make.write(table, _csv(rows))
    with pytest.raises(
        DataError, match=r"line 3: Domain is 'chest'; expected general or medical.*domain: null"
    ):
        _read(table)


def test_an_id_of_two_images_is_an_error(scans, make):
    rows = [["image", "caption", "image_id"], ["1.png", "A.", "x"], ["2.png", "B.", "x"]]
    records, _ = _read(make.write(scans / "t.csv", _csv(rows)))
    with pytest.raises(DataError, match=r"image id x \(train\) stands for two images, .*1\.png"):
        merge_repeated(records)
    assert Counter(r.image_id for r in records) == {"x": 2}
