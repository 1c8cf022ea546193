"""A table that says ``../images/x.png`` could neither be checked nor trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_check_trees import jpeg_bytes, picture, put
from omegaconf import OmegaConf

from lavis_msmedcap.cli import main
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.builders.table import CaptionTableBuilder
from lavis_msmedcap.datasets.readers.report import ReadReport


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    rows = ["image,caption,split"]
    for number in range(3):
        put(tmp_path / "ward" / "images" / f"{number}.jpg", jpeg_bytes(picture(number)))
        rows.append(f"../images/{number}.jpg,Axial CT number {number} of the chest.,train")
    put(tmp_path / "ward" / "tables" / "all.csv", "\n".join(rows) + "\n")
    return tmp_path / "ward"


def builder(ward: Path, **info: Any) -> CaptionTableBuilder:
    info["table"] = str(ward / "tables" / "all.csv")
    settings = {"data_type": "images", "domain": "medical", "build_info": info}
    return CaptionTableBuilder(OmegaConf.create(settings))


def test_training_names_the_key_and_then_finds_them(ward: Path) -> None:
    told = f"set datasets.caption_table.build_info.images to {ward}/images"
    with pytest.raises(DataError, match=told):
        builder(ward).read_records(ReadReport("caption_table"))
    for images in (ward, ward / "images"):
        records = builder(ward, images=str(images)).read_records(ReadReport("caption_table"))
        assert [r.image for r in records["train"]] == [
            str(ward / "images" / f"{number}.jpg") for number in range(3)
        ]


def test_the_check_names_its_option_and_then_finds_them(ward: Path, capsys: Any) -> None:
    command = ["data", "check", str(ward / "tables" / "all.csv")]
    assert main(command) == 2
    assert "(msmedcap data check: --images)" in capsys.readouterr().err
    assert main([*command, "--images", str(ward / "images")]) == 0
    assert capsys.readouterr().out.endswith("\nno problems\n")
    assert main([*command, "--images", str(ward / "nowhere")]) == 2
    assert "the folder not found" in capsys.readouterr().err


def test_names_of_another_folder(ward: Path, capsys: Any) -> None:
    table = put(ward / "plain.csv", "image,caption\n0.jpg,CT of the chest.\n")
    assert main(["data", "check", str(table)]) == 1
    out = capsys.readouterr().out
    assert "image files that do not exist" in out
    assert "name their folder (--images" in out
    assert main(["data", "check", str(table), "--images", str(ward / "images")]) == 0


def test_formats_that_say_it_themselves(ward: Path, capsys: Any) -> None:
    folder = ward / "roco" / "data" / "train" / "radiology"
    put(folder / "captions.txt", "ROCO_1\t CT.\n")
    assert main(["data", "check", str(ward / "roco"), "--images", str(ward)]) == 2
    assert "read as a ROCO v1 tree, which says where its images are" in capsys.readouterr().err
    config = put(ward / "run.yaml", "model: {}\n")
    assert main(["data", "check", str(config), "--images", str(ward)]) == 2
    assert "set datasets.<name>.build_info.images" in capsys.readouterr().err
