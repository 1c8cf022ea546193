"""ImageCLEF's tables beside ``train/`` and ``valid/`` were read as tables without an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.cli import main
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.builders.table import CaptionTableBuilder
from lavis_msmedcap.datasets.readers.lookup import ImageFinder
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.readers.table import read_table

FOLDERS = {"train": "train", "val": "valid"}


def _name(word: str, number: int) -> str:
    return f"ImageCLEFmedical_Caption_2023_{word}_{number:06d}"


def _table(root: Path, word: str) -> Path:
    return root / f"ImageCLEFmedical_Caption_2023_caption_prediction_{word}_labels.csv"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The challenge's files as they are when unpacked."""
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    root = tmp_path / "imageclef"
    for shift, word in enumerate(FOLDERS.values()):
        (root / word).mkdir(parents=True)
        lines = ["ID\tCaption"]
        for number in range(3):
            image = Image.linear_gradient("L").rotate(90 * shift + 30 * number)
            image.save(root / word / f"{_name(word, number)}.jpg")
            lines.append(f"{_name(word, number)}\tA {word} image, number {number}.")
        _table(root, word).write_text("\n".join(lines) + "\n")
    return root


def _builder(**info: Any) -> CaptionTableBuilder:
    settings = {"data_type": "images", "domain": "medical", "build_info": info}
    return CaptionTableBuilder(OmegaConf.create(settings))


@pytest.mark.parametrize("images", [{}, {"images": "."}])
def test_they_train(root: Path, images: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    records = _builder(table=str(root), **images).read_records(ReadReport("caption_table"))
    for split, word in FOLDERS.items():
        assert [record.image for record in records[split]] == [
            str(root / word / f"{_name(word, number)}.jpg") for number in range(3)
        ]


def test_they_are_checked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(root)]) == 0
    assert "no problems" in capsys.readouterr().out


def test_one_table_whose_name_tells_the_folder(root: Path) -> None:
    records = list(read_table(_table(root, "valid"), split="train"))
    assert [Path(record.image).parent for record in records] == [root / "valid"] * 3


def test_a_row_tells_its_split(root: Path) -> None:
    table = root / "all.csv"
    rows = [f"{_name(word, 1)},A caption.,{split}" for split, word in FOLDERS.items()]
    table.write_text("\n".join(["image,caption,split", *rows]) + "\n")
    records = list(read_table(table, split=None))
    assert [record.image for record in records] == [
        str(root / word / f"{_name(word, 1)}.jpg") for word in FOLDERS.values()
    ]


def test_what_lies_beside_the_table_goes_first_and_other_splits_are_not_asked(root: Path) -> None:
    name = _name("train", 0)
    finder = ImageFinder(root)
    assert finder.find(name, "t.csv, line 2", ("val", None)) == str(root / name)  # missing
    assert finder.find(name, "t.csv, line 2", ("val", "train")).startswith(f"{root}/train/")
    (root / f"{name}.png").touch()
    found = ImageFinder(root).find(name, "t.csv, line 2", ("train",))
    assert found == str(root / f"{name}.png")


def test_two_folders_of_one_split(root: Path) -> None:
    (root / "validation").mkdir()
    name = f"{_name('valid', 0)}.jpg"
    assert ImageFinder(root).find(name, "t.csv, line 2", ("val",)) == str(root / "valid" / name)
    (root / "validation" / name).touch()
    with pytest.raises(DataError, match=r"t\.csv, line 2: image .* may be .*write the folder"):
        ImageFinder(root).find(name, "t.csv, line 2", ("val",))
