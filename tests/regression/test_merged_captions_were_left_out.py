"""The check called entries "left out: repeated image" whose captions were kept with the image."""

from __future__ import annotations

from pathlib import Path

from data_check_trees import jpeg_bytes, picture, put, roco

from lavis_msmedcap.data_check.cache import FactsCache
from lavis_msmedcap.data_check.check import DataCheck, check_data
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.data_check.text import describe, to_plain
from lavis_msmedcap.datasets.readers.report import ReadReport


def checked(place: Path) -> DataCheck:
    report = ReadReport("mine")
    records = read_place(place, report)[1]
    return check_data("test", records, [report], {}, FactsCache(None), workers=1)


def left_out(check: DataCheck) -> dict[str, int]:
    return {f.kind: f.count for f in check.findings if f.kind.startswith("left out")}


def table(folder: Path, *captions: str) -> Path:
    put(folder / "a.png", picture(1))
    rows = "".join(f"a.png,{caption}\n" for caption in captions)
    return put(folder / "mine.csv", f"image,caption\n{rows}")


def test_another_caption_of_an_image_is_kept_and_told(tmp_path: Path) -> None:
    check = checked(table(tmp_path, "CT of the chest.", "A second reading of it."))
    assert len(check.records[0].captions) == 2
    assert left_out(check) == {}
    text = describe(check)
    assert "left out" not in text
    assert "  mine: repeated images with another caption, which was added (1)\n" in text
    (told,) = to_plain(check)["datasets"]
    assert (told["read"], told["left_out"]) == (2, {})


def test_a_row_that_says_nothing_new_is_left_out(tmp_path: Path) -> None:
    check = checked(table(tmp_path, "CT of the chest.", "Another.", "Another.", "CT of the chest."))
    assert left_out(check) == {"left out: repeated image": 2}


def test_a_repeated_id_of_roco(tmp_path: Path) -> None:
    tree = roco(tmp_path, "train", {"R_1": ("PMC1", "A CT.", jpeg_bytes(picture(1)))})
    captions = tree / "data" / "train" / "radiology" / "captions.txt"
    captions.write_text("R_1\t A CT.\nR_1\t The same CT again.\n", encoding="utf-8")
    check = checked(tree)
    assert check.records[0].captions == ("A CT.", "The same CT again.")
    assert left_out(check) == {}
    told = "mine: entries with a repeated id, the caption added to the first (1)\n"
    assert told in describe(check)
