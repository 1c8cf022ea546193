from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.imaging.places import ImagePlace, parse_place, split_place


@pytest.mark.parametrize(
    ("image", "file", "kind", "value"),
    [
        ("/d/scan.dcm::frame=3", "/d/scan.dcm", "frame", "3"),
        ("/d/head.nii.gz::slice=40", "/d/head.nii.gz", "slice", "40"),
        ("/d/0.tar::bytes=512+3456", "/d/0.tar", "bytes", "512+3456"),
        ("/d/t.parquet::row=17@image", "/d/t.parquet", "row", "17@image"),
        ("/d/a::b/c.dcm::frame=0", "/d/a::b/c.dcm", "frame", "0"),  # the last part counts
        ("/d/a::frame=1::frame=2", "/d/a::frame=1", "frame", "2"),
        ("/d/two\nlines.dcm::frame=0", "/d/two\nlines.dcm", "frame", "0"),
        ("/d/scan.dcm::frame=x", "/d/scan.dcm", "frame", "x"),  # whoever reads it complains
    ],
)
def test_parts_are_taken_apart_and_put_together(
    image: str, file: str, kind: str, value: str
) -> None:
    for place in (split_place(image), parse_place(image)):
        assert place == ImagePlace(file, kind, value)
        assert str(place) == image


@pytest.mark.parametrize(
    "image",
    [
        "/d/scan.png",
        "/d/a::b.png",
        "/d/a::page=3",
        "/d/a::frame=",
        "/d/a:frame=3",
        "::frame=3",
        "/d/a::Frame=3",
        "",
    ],
)
def test_everything_else_is_a_path(image: str) -> None:
    assert split_place(image) == parse_place(image) == ImagePlace(image)
    assert str(ImagePlace(image)) == image


@pytest.mark.parametrize("name", ["a::frame=1.png", "a.nii::slice=2", "a.tar::bytes=x"])
def test_a_file_of_that_very_name_wins(tmp_path: Path, name: str) -> None:
    image = str(tmp_path / name)
    assert parse_place(image).kind
    Path(image).touch()
    assert parse_place(image) == ImagePlace(image)
    assert split_place(image).kind  # does not look


def test_a_link_to_nowhere_is_a_file_of_that_name(tmp_path: Path) -> None:
    link = tmp_path / "a::frame=1"
    link.symlink_to("gone")
    assert parse_place(str(link)) == ImagePlace(str(link))


@pytest.mark.parametrize("part", ["bytes=512+3456", "row=17@image"])
def test_parts_that_readers_make_are_never_looked_up(tmp_path: Path, part: str) -> None:
    image = tmp_path / f"a::{part}"
    image.touch()
    assert parse_place(str(image)).file == str(tmp_path / "a")
