from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.datasets.readers.identity import ImageKeys, joined_groups
from lavis_msmedcap.datasets.records import MedCapRecord


def record(image: str | Path, image_id: str = "i", group: str | None = None) -> MedCapRecord:
    return MedCapRecord(str(image), ("CT.",), image_id, "train", group, "mine", "medical")


def test_two_ways_to_a_file_are_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    keys = ImageKeys()
    ways = ["real/a.png", "link/a.png", "real/../link/./a.png"]
    names = {keys.image(record(tmp_path / way)) for way in ways}
    names |= {keys.image(record(f"{tmp_path}//real//a.png")), keys.image(record("a.png"))}
    assert names == {f"{tmp_path.resolve()}/real/a.png"}
    assert keys.image(record(tmp_path / "link" / "b.png")) not in names


def test_parts_of_a_file_are_images_and_views_of_it_one_scan(tmp_path: Path) -> None:
    keys = ImageKeys()
    names = {
        part: f"{tmp_path.resolve()}/a{part}"
        for part in ("", "::frame=0", "::frame=1", "::slice=3", "::bytes=512+9", "::row=1@image")
    }
    assert {part: keys.image(record(name)) for part, name in names.items()} == names
    scans = {part: keys.scan(record(name)) for part, name in names.items()}
    one = names[""]
    assert {part for part, scan in scans.items() if scan == one} == {
        "", "::frame=0", "::frame=1", "::slice=3",
    }  # fmt: skip
    assert scans["::row=1@image"] == names["::row=1@image"]


def test_a_column_may_have_a_slash() -> None:
    keys = ImageKeys()
    images = [record(f"/d/a.parquet::row={row}@views/{side}") for row in (1, 2) for side in "lr"]
    assert len({keys.scan(image) for image in images}) == 4


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        ([("a", "i1", None), ("b", "i2", None)], ["i1", "i2"]),
        ([("a", "i1", "p1"), ("b", "i2", "p1")], ["p1", "p1"]),
        # one image, of whose rows one only says the patient
        ([("a", "i2", None), ("a", "i1", "p1"), ("b", "i3", None)], ["p1", "p1", "i3"]),
        # a patient is joined to another by an image of both; the first in the alphabet names them
        ([("a", "i1", "p9"), ("b", "i2", "p2"), ("b", "i3", "p9")], ["p2", "p2", "p2"]),
        # an id per caption, and no group: the first id, though a later one ends the chain
        ([("a", "i3", None), ("a", "i1", None), ("a", "i2", None)], ["i1", "i1", "i1"]),
        # a group before an id, wherever that is in the alphabet
        ([("a", "a", None), ("a", "b", "z")], ["z", "z"]),
        # frames of one file
        ([("s::frame=0", "i1", None), ("s::frame=1", "i2", None)], ["i1", "i1"]),
        # one id of two files means one thing
        ([("a", "i1", None), ("b", "i1", None)], ["i1", "i1"]),
    ],
)
def test_what_must_stand_in_one_split(
    rows: list[tuple[str, str, str | None]], expected: list[str]
) -> None:
    records = [record(f"/d/{image}", image_id, group) for image, image_id, group in rows]
    assert joined_groups(records) == expected
    assert joined_groups(records[::-1]) == expected[::-1]


def test_a_long_chain_is_one_group() -> None:
    records = [record(f"/d/{n // 2}", f"i{n}", f"p{(n + 1) // 2:05d}") for n in range(4000)]
    assert set(joined_groups(records)) == {"p00000"}
