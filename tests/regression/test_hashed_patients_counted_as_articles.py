"""MD5s of patients' numbers went into shards, "PMC-00017" of a hospital became an article.

And the page of ``msmedcap data check`` named the patients beside their images.
"""

from __future__ import annotations

import hashlib
import html
import json
from pathlib import Path
from typing import Any

import pytest
from data_check_trees import picture, put, record

from lavis_msmedcap.cli import main
from lavis_msmedcap.data_check.leaks import GROUP, leaks
from lavis_msmedcap.data_convert.groups import number_groups

ARTICLE = "0a1b2c3d4e" * 4
SECRET = (
    hashlib.md5(b"4711").hexdigest(),
    hashlib.sha1(b"4711").hexdigest(),
    hashlib.sha256(b"4711").hexdigest(),
    "PMC-00017",
    "PMC00017",
    "x PMC4608653",
    "10.2024/00017",
    "MRN 12",
)
PUBLIC = {
    "PMC4608653": "PMC4608653",
    "pmc4608653": "PMC4608653",
    "https://pmc.ncbi.nlm.nih.gov/articles/PMC4608653/": "PMC4608653",
    "https://doi.org/10.1000/ABC.1": "10.1000/abc.1",
}


@pytest.mark.parametrize("group", SECRET)
def test_ids_of_patients_become_numbers(group: str) -> None:
    ((numbered,),) = number_groups(
        {("ward", "train"): [record(0, group=group, source="ward")]}
    ).values()
    assert numbered.group_id == "ward-1"


@pytest.mark.parametrize("group", PUBLIC)
def test_articles_stay(group: str) -> None:
    ((kept,),) = number_groups(
        {("ward", "train"): [record(0, group=group, source="ward")]}
    ).values()
    assert kept.group_id == PUBLIC[group]


def test_hashes_of_medicat_stay_whatever_the_folder_is_called() -> None:
    named = record(0, group=ARTICLE, source="release", image_id=f"{ARTICLE}_2-Figure1-1")
    other = record(1, group=ARTICLE, source="ward", image_id=f"{ARTICLE}_2")
    parts = {
        (r.source, "train"): [r] for r in (named, other, record(2, group=ARTICLE, source="medicat"))
    }
    found = {source: r.group_id for (source, _), (r,) in number_groups(parts).items()}
    assert found == {"release": ARTICLE, "ward": "ward-1", "medicat": ARTICLE}


def test_equal_numbers_of_two_hospitals_are_two_patients() -> None:
    records = [record(0, "train", "PMC-00017", "north"), record(1, "test", "PMC-00017", "south")]
    assert leaks(records).of_kind(GROUP) == []


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    rows = ["image,caption,patient_id,split"]
    for number, group in enumerate([*SECRET, "PMC4608653"]):
        picture(number).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,Film number {number}.,{group},train")
        rows.append(f"gone{number}.png,Film number {number}.,{group},test")
    return put(tmp_path / "ward.csv", "\n".join(rows) + "\n")


def test_shards_and_pages_name_no_patient(ward: Path, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "page.html"
    main(["data", "check", str(ward), "--html", str(page)])
    shown = html.unescape(page.read_text(encoding="utf-8"))
    assert not [group for group in SECRET if group in shown]
    assert "ward · train · 8.png · PMC4608653" in shown
    assert "ward · test · gone8.png · PMC4608653: " in shown
    capsys.readouterr()

    train = "\n".join(line for line in ward.read_text().splitlines() if "gone" not in line)
    clean, out = put(tmp_path / "all.csv", train), tmp_path / "out"
    assert main(["data", "convert", str(clean), str(out), "--to", "webdataset"]) == 0
    assert f"{len(SECRET)} patients (group_id) are written as numbers" in capsys.readouterr().out
    index = (out / "all-train-000000.index.jsonl").read_text()
    groups = [json.loads(line).get("group_id") for line in index.splitlines()]
    assert sorted(filter(None, groups)) == ["PMC4608653", *(f"all-{n}" for n in range(1, 9))]
