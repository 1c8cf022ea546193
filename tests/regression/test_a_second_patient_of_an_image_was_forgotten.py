"""An image with rows of two patients kept the first one: the second stood in train and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_check_trees import manifest_lines, picture, put, record

from lavis_msmedcap.cli import main
from lavis_msmedcap.data_convert.groups import number_groups
from lavis_msmedcap.datasets.readers.identity import groups_of
from lavis_msmedcap.datasets.readers.selection import merge_repeated, split_by_group

ROWS = """image,caption,patient_id,split
0.png,An axial slice.,pA,test
0.png,A slice with contrast.,pB,test
1.png,A coronal slice.,pB,train
2.png,A sagittal slice.,pC,train
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    return put(tmp_path / "t.csv", ROWS)


def test_it_is_a_leak_and_can_be_taken_out(table: Path, tmp_path: Path, capsys: Any) -> None:
    clean = tmp_path / "clean.jsonl"
    assert main(["data", "check", str(table), "--fix", str(clean)]) == 1
    told = capsys.readouterr().out
    assert "1 of 1 (100.0 %) test images from an article or patient that train has" in told
    assert "1 of 3 (33.3 %) images whose rows name several articles or patients" in told
    kept = {row["image_id"]: row["group_id"] for row in manifest_lines(clean)}
    assert kept == {"0.png": "pA && pB", "2.png": "pC"}
    assert main(["data", "check", str(clean)]) == 0


def test_it_is_in_the_shards_as_a_number_and_decides_on_splits() -> None:
    rows = [record(0, group="pA", image="/0.png"), record(0, group="pB", image="/0.png")]
    other, third = record(1, group="pB"), record(2, group="pC")
    merged = merge_repeated([*rows, other, third])
    assert [groups_of(r) for r in merged] == [["pA", "pB"], ["pB"], ["pC"]]
    assert merge_repeated([*merged, *rows]) == merged
    (numbered,) = number_groups({("roco", "train"): merged}).values()
    assert [r.group_id for r in numbered] == ["roco-1 && roco-2", "roco-2", "roco-3"]
    for seed in range(20):
        splits = {
            r.image_id: r.split for r in split_by_group(merged, {"train": 0.5, "test": 0.5}, seed)
        }
        before = split_by_group([*rows, other, third], {"train": 0.5, "test": 0.5}, seed)
        assert splits["roco0"] == splits["roco1"]
        assert splits == {r.image_id: r.split for r in before}
