"""Of tables with and without a split column, training dropped the latter; the check did not."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_check_trees import picture, put
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.builders.table import CaptionTableBuilder
from lavis_msmedcap.datasets.readers.report import ReadReport


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(8):
        put(tmp_path / f"{i}.png", picture(i))
    rows = "".join(
        f"{i}.png,CT number {i} of the chest,{'test' if i else 'train'}\n" for i in (0, 1)
    )
    put(tmp_path / "ward_a.csv", f"image,caption,split\n{rows}")
    rows = "".join(f"{i}.png,CT number {i} of the chest\n" for i in range(2, 8))
    put(tmp_path / "ward_b.csv", f"image,caption\n{rows}")
    return tmp_path


def trained(**build_info: object) -> dict[str, int]:
    config = OmegaConf.load(CaptionTableBuilder.default_config_path("demo")).datasets.caption_table
    config.build_info = build_info
    records = CaptionTableBuilder(config).read_records(ReadReport("mine"))
    return {split: len(found) for split, found in records.items()}


def test_training_and_check_refuse_them(folder: Path) -> None:
    for read in (
        lambda: trained(table=str(folder)),
        lambda: read_place(folder, ReadReport("mine")),
    ):
        with pytest.raises(
            DataError, match=r"ward_a\.csv\), others do not \(.*ward_b\.csv"
        ) as told:
            read()
        assert "build_info.columns: {split: null}" in str(told.value)


def test_both_cures_work(folder: Path) -> None:
    drawn = trained(table=str(folder), columns={"split": None})
    assert sum(drawn.values()) == 8
    parts = {"train": str(folder / "ward_b.csv"), "test": str(folder / "ward_a.csv")}
    assert trained(table=parts) == {"train": 6, "test": 2}
