from __future__ import annotations

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.lookup import ImageFinder


@pytest.fixture
def folder(tmp_path):
    names = [
        *("a.png", "a.txt", "b.JPG", "c.png", "c.dcm", "1.2.840.113", "1.2.840.114.dcm"),
        *("head.nii.gz", "sub/d.tif", r"back\slash.png"),
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a.png"),
        ("./a.png", "a.png"),
        ("a", "a.png"),
        ("b.jpg", "b.JPG"),
        ("b", "b.JPG"),
        ("1.2.840.113", "1.2.840.113"),
        ("1.2.840.114", "1.2.840.114.dcm"),
        ("head", "head.nii.gz"),
        ("sub/d", "sub/d.tif"),
        (r"sub\d.tif", "sub/d.tif"),
        (r"back\slash.png", r"back\slash.png"),
        ("c.dcm::frame=3", "c.dcm::frame=3"),
        ("head::slice=4", "head.nii.gz::slice=4"),
        ("nowhere.png", "nowhere.png"),
        ("a.jpg", "a.jpg"),
        ("sub/../a.png", "a.png"),
    ],
)
def test_names_and_the_files_that_they_mean(folder, name, expected):
    assert ImageFinder(folder).find(name, "t.csv, line 2") == str(folder / expected)


def test_absolute_paths_are_taken_as_they_are(folder, tmp_path):
    finder = ImageFinder(tmp_path / "elsewhere")
    assert finder.find(str(folder / "a"), "t.csv, line 2") == str(folder / "a.png")


def test_a_relative_folder_gives_absolute_paths(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert ImageFinder(folder.relative_to(folder)).find("a.png", "x") == str(folder / "a.png")


@pytest.mark.parametrize("name", ["../sub/d.tif", r"..\sub\d", "d.tif", "deeper/../d.tif"])
def test_names_that_lead_from_the_table_into_the_folder_of_images(folder, name):
    finder = ImageFinder(folder / "sub", table=folder / "tables")
    assert finder.find(name, "t.csv, line 2") == str(folder / "sub" / "d.tif")
    with pytest.raises(DataError, match=r"tables, to .*a\.png; if it is meant, set images to "):
        finder.find("../a.png", "t.csv, line 2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("c", r"t\.csv, line 2: image c may be c\.dcm, c\.png in .*; write its extension"),
        (
            "../a.png",
            r"t\.csv, line 2: image \.\./a\.png leads out of .*; .*set images to .*--images",
        ),
        ("sub/../../a.png", "leads out of"),
        (r"..\a.png", "leads out of"),
        (r"C:\scans\a.png", "refused"),
        ("s3://bucket/a.png", "is an address"),
    ],
)
def test_names_that_are_refused(folder, name, message):
    with pytest.raises(DataError, match=message):
        ImageFinder(folder).find(name, "t.csv, line 2")
