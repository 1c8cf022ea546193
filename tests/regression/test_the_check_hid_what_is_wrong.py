"""``data check`` called folders of no known format whose fault the builders name exactly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_check_trees import picture, put

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.data_check.formats import read_place
from lavis_msmedcap.datasets.readers.report import ReadReport


def fault_of(place: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_place(place, ReadReport("mine"))
    return str(caught.value)


def test_a_table_that_belongs_to_no_split(tmp_path: Path) -> None:
    for name in ("train", "test", "metadata"):
        put(tmp_path / f"{name}.csv", "image,caption\na.png,A scan.\n")
    fault = fault_of(tmp_path)
    assert "metadata.csv belongs to no split, other tables beside it do" in fault
    assert "name only the files that are meant" in fault


@pytest.mark.parametrize("inner", ["", "release"])
def test_two_release_files(tmp_path: Path, inner: str) -> None:
    entry = {"pdf_hash": "a" * 40, "fig_uri": "1.png", "s2_caption": "A scan."}
    release = tmp_path / "release"
    put(release / "figures" / f"{'a' * 40}_1.png", picture(1))
    for name in ("oa", "small"):
        path = put(release / f"s2_full_figures_{name}.jsonl", json.dumps(entry) + "\n")
    fault = fault_of(tmp_path / inner)
    assert "s2_full_figures_oa.jsonl, s2_full_figures_small.jsonl" in fault
    assert "name the one to read instead of the folder" in fault
    assert read_place(path, ReadReport("mine"))[0].name == "medicat"
