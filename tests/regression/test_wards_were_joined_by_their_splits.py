"""Tables of two wards were one data set to the check, and equal patient numbers a leak."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_check_trees import picture, put

from lavis_msmedcap import cli
from lavis_msmedcap.datasets.readers.files import name_without_split

FILES = [f"ward_{ward}_{split}.csv" for ward in "ab" for split in ("train", "test")]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


def write(name: str, number: int, patient: str) -> None:
    put(Path(f"{number}.png"), picture(number))
    row = f"{number}.png,Axial CT number {number} of the chest.,{patient}\n"
    put(Path(name), f"image,caption,patient_id\n{row}")


def check(*arguments: str) -> int:
    return cli.main(["data", "check", *arguments])


def test_each_ward_is_a_data_set(capsys):
    # patient 1 of ward a is in train, patient 1 of ward b in test
    for number, (name, patient) in enumerate(zip(FILES, "1221")):
        write(name, number, patient)
    assert check(*FILES, "--json", "check.json") == 0
    assert "ward_a_train.csv, ward_a_test.csv are read as one data set" in capsys.readouterr().err
    told = json.loads(Path("check.json").read_text(encoding="utf-8"))
    assert [(entry["name"], entry["checked"]) for entry in told["datasets"]] == [
        ("ward_a", {"train": 1, "test": 1}),
        ("ward_b", {"train": 1, "test": 1}),
    ]


def test_a_patient_in_two_splits_of_a_ward_is_a_leak(capsys):
    for number, (name, patient) in enumerate(zip(FILES, "1123")):
        write(name, number, patient)
    assert check(*FILES) == 1
    told = capsys.readouterr().out
    assert "1 of 2 (50.0 %) test images from an article or patient that train has" in told
    assert "ward_a test in ward_a train: 1" in told


@pytest.mark.parametrize(
    ("stem", "rest"),
    [
        ("train", ""),
        ("Ward_A-Train", "ward_a"),
        ("test_ward_a", "ward_a"),
        ("captions_val2014", "captions_2014"),
        ("validation-00000-of-00003", ""),
        ("ward1_train", "ward1"),
        ("Röntgen Test", "röntgen"),
        ("contest", "contest"),
    ],
)
def test_the_name_without_its_split(stem, rest):
    assert name_without_split(stem) == rest
