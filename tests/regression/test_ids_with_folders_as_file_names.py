"""A table of files in folders, as in the README, could not become LAVIS json.

Its ids are the names with their folders, which were refused as names of copies.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_check_trees import picture, put
from dicom_files import make_dicom, ramp, save
from PIL import Image

from lavis_msmedcap.cli import main
from lavis_msmedcap.imaging.read import read_image


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    save(make_dicom(ramp(0, 4095)), tmp_path / "images" / "ct_001.dcm")
    put(tmp_path / "images" / "film 2.png", picture(2))
    put(tmp_path / "images_film_2.png", picture(3))
    names = ["images/ct_001.dcm", "images/film 2.png", "images_film_2.png"]
    rows = [f"{name},Chest image {number}." for number, name in enumerate(names)]
    return put(tmp_path / "captions.csv", "image,caption\n" + "\n".join(rows) + "\n")


def test_images_are_copied_under_names_of_their_own(
    table: Path, tmp_path: Path, capsys: Any
) -> None:
    out = tmp_path / "out"
    command = ["data", "convert", str(table), str(out), "--to", "lavis-json"]
    assert main(command) == 2
    assert "1 DICOM. Give --images copy" in capsys.readouterr().err
    assert main([*command, "--images", "copy"]) == 0
    entries = json.loads((out / "captions_train.json").read_text())
    assert [entry["image"] for entry in entries] == [
        "captions/train/images_ct_001.dcm.png",
        "captions/train/images_film_2.png.png",
        "captions/train/images_film_2.png-2.png",
    ]
    for entry in entries:
        original = read_image(tmp_path / entry["image_id"])
        with Image.open(out / "images" / entry["image"]) as copy:
            assert np.array_equal(np.asarray(copy.convert("RGB")), np.asarray(original))
