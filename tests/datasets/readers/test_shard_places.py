from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.shard_places import expand_braces, find_shards

KEY = "datasets.x.build_info.root"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a-000008.tar", "a-000009.tar", "a-000010.tar", "b-000000.tar", "b.index.jsonl"):
        (tmp_path / name).touch()
    return tmp_path


def names(place, key=KEY):
    return [path.name for path in find_shards(str(place), key)]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("", ["a-000008.tar", "a-000009.tar", "a-000010.tar", "b-000000.tar"]),
        ("a-*.tar", ["a-000008.tar", "a-000009.tar", "a-000010.tar"]),
        ("a-{000008..000010}.tar", ["a-000008.tar", "a-000009.tar", "a-000010.tar"]),
        ("{b-000000,a-000009}.tar", ["b-000000.tar", "a-000009.tar"]),
        ("b-000000.tar", ["b-000000.tar"]),
    ],
)
def test_ways_to_name_shards(folder: Path, place: str, expected: list[str]) -> None:
    assert names(folder / place) == expected


def test_braces_combine_and_keep_leading_zeros() -> None:
    found = expand_braces("/{x,y}/{08..11}.tar", KEY)
    assert found == [f"/{a}/{b}.tar" for a in "xy" for b in ("08", "09", "10", "11")]
    assert expand_braces("/{0..2,7}.tar", KEY) == ["/0.tar", "/1.tar", "/2.tar", "/7.tar"]


def test_a_file_with_braces_in_its_name_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a{1..2}[x].tar"
    path.touch()
    assert find_shards(str(path), KEY) == [path]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("a-{000008..000012}.tar", r"no shards at .*a-000011\.tar, .*a-000012\.tar;"),
        ("c-*.tar", r"no shards at files that match .*c-\*\.tar"),
        ("gone", "no shards at .*gone;"),
        ("a-{000009..000008}.tar", "the smaller number first"),
        ("a-{0..99999999999}.tar", "at most 1,000,000"),
        ("{0..2000}{0..2000}.tar", "more than 1,000,000 shards"),
        ("a-{000008.tar", "without its other half"),
        ("b.index.jsonl", r"is no \.tar file"),
        ("z.tar.gz", r"compressed.*gunzip z\.tar\.gz"),
    ],
)
def test_what_is_wrong_is_told_with_the_key(folder: Path, place: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        find_shards(str(folder / place), KEY)
    assert str(caught.value).startswith(f"{KEY}: ")


def test_an_empty_folder_has_no_shards(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="msmedcap data convert --to webdataset"):
        find_shards(str(tmp_path), KEY)
