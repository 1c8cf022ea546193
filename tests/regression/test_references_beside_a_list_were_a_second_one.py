"""``msmedcap data check`` read captions_test_gt.json as more images beside captions_test.json.

Only data sets with "caption" in their name were concerned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_check_trees import picture, put

from lavis_msmedcap.cli import main
from lavis_msmedcap.datasets.readers.coco_files import coco_files


@pytest.mark.parametrize("name", ["captions", "ward"])
def test_what_was_converted_can_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str
) -> None:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    rows = ["image,caption,image_id,split"]
    for number, split in enumerate(["train", "train", "val", "test"]):
        put(tmp_path / f"{number}.png", picture(number))
        rows += [f"{number}.png,Caption {letter} {number}.,id{number},{split}" for letter in "ab"]
    table = put(tmp_path / f"{name}.csv", "\n".join(rows) + "\n")
    out = tmp_path / "out"
    command = ["data", "convert", str(table), str(out), "--to", "lavis-json", "--images", "copy"]
    assert main(command) == 0
    assert [path.name for path in coco_files(out)] == [
        f"{name}_{split}.json" for split in ("test", "train", "val")
    ]
    capsys.readouterr()
    assert main(["data", "check", str(out)]) == 0
    assert capsys.readouterr().out.endswith("\nno problems\n")


def test_references_alone_are_a_data_set(tmp_path: Path) -> None:
    text = '{"images": [], "annotations": [{"caption": "CT."}]}'
    gt = put(tmp_path / "captions_val_gt.json", text)
    assert coco_files(tmp_path) == coco_files(gt) == [gt]
