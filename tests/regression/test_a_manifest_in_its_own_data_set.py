"""What ``data check --fix`` wrote into the folder of its data was read as more of the data."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_check_trees import picture, put, record
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.data_check.manifest import clean, write_manifest
from lavis_msmedcap.datasets.builders.table import CaptionTableBuilder
from lavis_msmedcap.datasets.readers.report import ReadReport


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(3):
        put(tmp_path / f"{i}.png", picture(i))
    rows = "".join(f"{i}.png,CT number {i} of the chest\n" for i in range(3))
    put(tmp_path / "captions.csv", f"image,caption\n{rows}")
    return tmp_path


def fix(path: Path, numbers: range) -> None:
    """Writes a manifest of some images of the folder, in which number 2 was left out."""
    found = [record(i, image=str(path.parent / f"{i}.png")) for i in numbers]
    write_manifest(path, clean(found, ["image: truncated" if i == 2 else "" for i in numbers]))


def images_of(folder: Path) -> list[str]:
    return [Path(r.image).name for r in read_place(folder, ReadReport("mine"))[1]]


def test_a_manifest_beside_its_table_is_refused(folder: Path) -> None:
    fix(folder / "clean.jsonl", range(3))
    config = OmegaConf.load(CaptionTableBuilder.default_config_path("demo")).datasets.caption_table
    config.build_info = {"table": str(folder)}
    for read in (
        lambda: images_of(folder),
        lambda: CaptionTableBuilder(config).read_records(ReadReport("mine")),
    ):
        with pytest.raises(
            DataError, match=r"holds clean\.jsonl, a clean manifest .* twice"
        ) as told:
            read()
        assert f"name one file instead of the folder ({folder / 'clean.jsonl'})" in str(told.value)
    (folder / "captions.csv").unlink()
    assert images_of(folder) == ["0.png", "1.png"]  # what was left out stays so


def test_what_was_left_out_is_no_table(folder: Path) -> None:
    fix(folder / "clean.jsonl", range(3))
    (folder / "clean.jsonl").rename(folder / "clean.kept")
    assert images_of(folder) == ["0.png", "1.png", "2.png"]


def test_manifests_named_by_their_splits_are_a_data_set(folder: Path) -> None:
    (folder / "captions.csv").unlink()
    fix(folder / "train.jsonl", range(1))
    fix(folder / "test.jsonl", range(1, 3))
    assert images_of(folder) == ["0.png", "1.png"]
    (folder / "test.jsonl").rename(folder / "more.jsonl")
    with pytest.raises(DataError, match="would be read twice"):
        images_of(folder)
