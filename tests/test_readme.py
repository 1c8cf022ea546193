"""What README.md and CONTRIBUTING.md name: options fit the runs, paths exist, the map is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from config_problems import other_problems
from environments import ROOT
from own_data import make_own_data
from readme import DOCUMENTS, README, blocks_of, inline_code

from lavis_msmedcap.run_config import resolve_run_config
from lavis_msmedcap.run_sources import packaged_configs


def test_the_yaml_block_is_all_that_a_run_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = (block.text for block in blocks_of(README) if block.language == "yaml")
    make_own_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    caption = yaml.safe_load(packaged_configs()["projects/msmedcap/caption.yaml"].read_text())
    caption["model"]["stage1"] = None
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**caption, **yaml.safe_load(block)}))
    assert resolve_run_config("own.yaml")[1] == []


# --- options -----------------------------------------------------------------------------------

TABLE_OPTIONS = [
    words
    for line in README.splitlines()
    if line.startswith("|")
    for words in re.findall(r"`--options ([^`]+)`", line)
]
OTHER_OPTIONS = [
    words for words in re.findall(r"`--options ([^`]+)`", README) if words not in TABLE_OPTIONS
]


# a row of Table 1 has its branches fixed, own data want a table
SINGLE_RUNS = sorted(
    name for name in packaged_configs() if "/table1/" not in name and "own_data" not in name
)


def problems_with(config: str, words: str) -> list[str]:
    return other_problems(resolve_run_config(config, words.split())[1])


@pytest.mark.parametrize("words", TABLE_OPTIONS)
@pytest.mark.parametrize("config", SINGLE_RUNS)
def test_options_of_the_table_suit_every_run(
    config: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problems_with(config, words) == []


@pytest.mark.parametrize("words", OTHER_OPTIONS)
def test_other_options_suit_some_run(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = {config: resolve_run_config(config, words.split())[1] for config in SINGLE_RUNS}
    assert [] in told.values(), told


def test_there_are_options() -> None:
    assert len(TABLE_OPTIONS) >= 4
    assert len(OTHER_OPTIONS) >= 1


# --- paths -------------------------------------------------------------------------------------

SUFFIXES = ("md", "py", "yaml", "toml", "cff", "csv", "html", "json", "safetensors")
PATH = re.compile(rf"[\w.-]+(/[\w.-]+)*/|[\w.-]+(/[\w.-]+)+|[\w-]+\.({'|'.join(SUFFIXES)})")
MADE_BY_RUNS = {
    "metrics.csv",
    "report.html",
    "weights/",
}  # test_the_commands_run_one_after_the_other


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    paths = [code for code in inline_code(text) if PATH.fullmatch(code)]
    paths = [path for path in paths if path not in MADE_BY_RUNS]
    assert len(paths) >= 3
    roots = (ROOT, ROOT / "lavis_msmedcap")
    absent = [p for p in paths if not any(places_of(root, p) for root in roots)]
    assert absent == []


def places_of(root: Path, path: str) -> list[Path]:
    """Finds a file, a folder, or a module written without its suffix."""
    return [place for place in (root / path, root / f"{path}.py") if place.exists()]


def test_the_map_of_the_house_is_complete() -> None:
    (text,) = (block.text for block in blocks_of(README) if "lavis_msmedcap/\n" in block.text)
    shown = set()
    for line in text.splitlines():
        folders = re.split(r"\s{2,}", line.strip())[0].split()
        root = Path("lavis_msmedcap") if line.startswith(" ") else Path()
        shown |= {(root / folder).as_posix() for folder in folders}
    assert [folder for folder in sorted(shown) if not (ROOT / folder).is_dir()] == []
    rooms = {path.parent for path in (ROOT / "lavis_msmedcap").glob("*/__init__.py")}
    assert {path.relative_to(ROOT).as_posix() for path in rooms} <= shown
