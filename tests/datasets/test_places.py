from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap import phantom
from lavis_msmedcap.datasets import places
from lavis_msmedcap.datasets.places import find_place, is_phantom, make_phantom


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The sets of embedded data that were asked for; making them would take a minute."""
    asked: list[object] = []

    def ensure(sizes: object = "first") -> str:
        asked.append(sizes)
        return "/made/further" if sizes is phantom.FURTHER else "/made/first"

    monkeypatch.setattr(phantom, "ensure_phantom", ensure)
    return asked


def test_the_current_folder_comes_before_the_cache(cache: Path) -> None:
    assert find_place("roco/data", cache) == Path("roco/data").absolute()  # in neither
    (cache / "roco" / "data").mkdir(parents=True)
    assert find_place("roco/data", cache) == cache / "roco" / "data"
    Path("roco/data").mkdir(parents=True)
    assert find_place("roco/data", cache) == Path("roco/data").absolute()


def test_an_absolute_place_is_nowhere_else(cache: Path) -> None:
    gone = cache.parent / "gone"
    assert find_place(str(gone), cache) == gone
    gone.mkdir()
    assert find_place(str(gone), cache) == gone


def test_folders_of_the_embedded_data(cache: Path, made: list[object]) -> None:
    assert find_place("phantom:roco", cache) == Path("/made/first/roco")
    assert find_place("phantom:coco/images", cache) == Path("/made/first/coco/images")
    assert find_place("phantom:table/a.csv", cache) == Path("/made/further/table/a.csv")
    assert find_place("phantom:rocov2", cache) == Path("/made/further/rocov2")
    assert made == ["first", "first", phantom.FURTHER, phantom.FURTHER]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("phantom:roco", True),
        ("/data/phantom:roco", False),
        ("phantom", False),
        (None, False),
        (3, False),
        ({"train": {"storage": ["/a", "phantom:b"]}}, True),
        ({"phantom:roco": "/a"}, False),  # a key is no place
        ([], False),
    ],
)
def test_places_are_found_at_any_depth(node: object, expected: bool) -> None:
    assert is_phantom(node) is expected


@pytest.mark.parametrize("main", [True, False])
def test_one_process_makes_what_a_node_names_while_the_others_wait(
    made: list[object], monkeypatch: pytest.MonkeyPatch, main: bool
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(places, "is_main_process", lambda: main)
    monkeypatch.setattr(places, "barrier", lambda: waited.append(len(made)))
    make_phantom({"root": "phantom:table", "more": [{"a": "phantom:roco"}, "/b", None]})
    assert made == ([phantom.FURTHER, "first"] if main else [])
    assert waited == [len(made)]
