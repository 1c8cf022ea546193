"""``data convert --to lavis-json --overwrite`` left files and images of splits that were gone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from data_check_trees import picture, put, record

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_convert.lavis_json import write_lavis_json
from lavis_msmedcap.datasets.records import MedCapRecord


def records(
    folder: Path, *splits: str, source: str = "mine", suffix: str = "png"
) -> list[MedCapRecord]:
    return [
        record(
            number,
            split,
            source=source,
            image=str(put(folder / f"{split}{number}.{suffix}", picture(number))),
            image_id=f"{split}{number}",
        )
        for number, split in enumerate(splits)
    ]


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


NEW = {"mine_train.json", "mine_val.json", "mine_val_gt.json", "report.json"}


@pytest.mark.parametrize("mode", ["copy", "keep"])
def test_what_an_earlier_conversion_wrote_goes(tmp_path: Path, mode: str) -> None:
    out = tmp_path / "out"
    write_lavis_json(records(tmp_path / "a", "train", "test", "test"), out, images="copy")
    assert "images/mine/test/test2.png" in tree(out)
    # another data set in the same folder, which stays
    write_lavis_json(records(tmp_path / "c", "val", source="more"), out, images="copy")
    more = {"more_val.json", "more_val_gt.json", "images/more/val/val0.png"}
    others = {"notes.txt", "mine_test_old.json", "images/other/train/x.png", "other_test.json"}
    for name in others:
        put(out / name, "[]\n")
    report = write_lavis_json(
        records(tmp_path / "b", "train", "val", suffix="jpg"), out, images=mode, overwrite=True
    )
    copies = (
        {"images/mine/train/train0.jpg", "images/mine/val/val1.jpg"} if mode == "copy" else set()
    )
    assert tree(out) == NEW | others | more | copies
    assert not (out / "images" / "mine" / "test").exists()
    assert not [note for note in report.notes if "besides" in note]
    told = json.loads((out / "report.json").read_text())
    assert list(told) == ["mine train", "mine val", "more val"]


@pytest.mark.parametrize("mode", ["copy", "keep"])
@pytest.mark.parametrize("name", ["mine_test.json", "mine_val_gt.json", "images/mine/test/0.png"])
def test_without_the_switch_any_of_it_is_refused(tmp_path: Path, mode: str, name: str) -> None:
    out = tmp_path / "out"
    put(out / name, "[]\n")
    train = records(tmp_path / "a", "train")
    if mode == "keep" and name.startswith("images"):
        write_lavis_json(train, out, images=mode)  # which has nothing to do with that folder
    else:
        with pytest.raises(DataError, match=r"is there already; .*--overwrite"):
            write_lavis_json(train, out, images=mode)
        assert tree(out) == {name}


def test_files_of_others_stay(tmp_path: Path) -> None:
    """Annotations of another form, and images that no report says were copied."""
    out = tmp_path / "out"
    own = json.dumps([{"image": "mine/test/0.png", "caption": "a", "image_id": "0"}])
    theirs = {
        "mine_test.json": own,
        "mine_val_gt.json": '{"images": []}',
        "images/mine/test/0.png": "",
    }
    for name, content in theirs.items():
        put(out / name, content)
    report = write_lavis_json(records(tmp_path / "a", "train"), out, images="copy", overwrite=True)
    assert all((out / name).read_text() == content for name, content in theirs.items())
    assert "images/mine holds 1 files besides" in report.notes[-1]


def test_images_that_were_never_copied_stay(tmp_path: Path) -> None:
    """A tree of somebody's own that lies where copies would be put, named in place at first."""
    out = tmp_path / "out"
    originals = records(out / "images" / "mine" / "train", "train")
    originals += [
        replace(r, split="test") for r in records(out / "images" / "mine" / "test", "test")
    ]
    beside = records(out / "images" / "more", "val")
    write_lavis_json([*originals, *beside], out)
    before = {name for name in tree(out) if name.startswith("images")}
    write_lavis_json(records(tmp_path / "b", "train"), out, overwrite=True)
    assert tree(out) == before | {"mine_train.json", "report.json"}


def test_images_that_are_read_from_the_folder_itself_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_lavis_json(records(tmp_path / "a", "train", "test"), out, images="copy")
    copy = out / "images" / "mine" / "test" / "test1.png"
    write_lavis_json([record(9, source="mine", image=str(copy))], out, overwrite=True)
    assert tree(out) == {"mine_train.json", "report.json", "images/mine/test/test1.png"}


def test_a_conversion_that_fails_takes_nothing_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_lavis_json(records(tmp_path / "a", "train", "test"), out, images="copy")
    before = tree(out)
    broken = replace(records(tmp_path / "b", "train")[0], image=str(put(tmp_path / "x.png", "no")))
    with pytest.raises(DataError):
        write_lavis_json([broken], out, images="copy", overwrite=True)
    assert tree(out) == before
