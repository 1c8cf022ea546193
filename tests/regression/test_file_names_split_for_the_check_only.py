"""Training pooled captions_train.csv and captions_test.csv, which the data check kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.builders.table import CaptionTableBuilder
from lavis_msmedcap.datasets.readers.files import split_word
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.table_files import find_tables


def _tables(folder: Path) -> list[Path]:
    paths = []
    for first, name in enumerate(("captions_train.csv", "ward_test_v2.csv")):
        rows = [f"{first}{i}.png,CT number {first}{i} of the chest" for i in range(6)]
        for i in range(6):
            Image.new("L", (4, 4), 100 * first + i).save(folder / f"{first}{i}.png")
        paths.append(folder / name)
        paths[-1].write_text("image,caption\n" + "\n".join(rows))
    return paths


@pytest.mark.parametrize("listed", [False, True])
def test_training_and_check_read_the_same_splits(tmp_path: Path, listed: bool) -> None:
    tables = _tables(tmp_path)
    config = OmegaConf.load(CaptionTableBuilder.default_config_path("demo")).datasets.caption_table
    config.build_info.table = [str(path) for path in tables] if listed else str(tmp_path)
    config.build_info.images = None
    datasets = CaptionTableBuilder(config).build_datasets()
    trained = {split: [r.image_id for r in data.records] for split, data in datasets.items()}
    _, records = read_place(tmp_path, ReadReport("mine"))
    checked: dict[str, list[str]] = {}
    for record in records:
        checked.setdefault(record.split, []).append(record.image_id)
    assert trained == checked
    assert trained["test"] == [f"1{i}.png" for i in range(6)]


def test_a_table_without_split_beside_others_is_an_error(tmp_path: Path) -> None:
    paths = [*_tables(tmp_path), tmp_path / "more.csv"]
    paths[-1].write_text("image,caption\n")
    for value in (str(tmp_path), list(map(str, paths))):
        with pytest.raises(DataError, match=r"more\.csv belongs to no split"):
            find_tables(value, Path, "key")


def test_one_named_table_is_split_by_its_rows(tmp_path: Path) -> None:
    path = _tables(tmp_path)[0]
    assert find_tables(str(path), Path, "key") == {None: [path]}


def test_a_name_of_several_splits_tells_none() -> None:
    assert split_word("captions_val2014.json") == "val"
    assert split_word("train_and_test.csv") is None
    assert split_word("contest.csv") is None
