"""A short run of tools/fuzz_data.py, and what it must notice."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lavis_msmedcap.common.errors import DataError

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(scope="module", autouse=True)
def tool() -> Iterator[ModuleType]:
    """The module that runs cases; the others are beside it."""
    sys.path.insert(0, str(TOOLS))
    try:
        yield importlib.import_module("fuzzing.cases")
    finally:
        sys.path.remove(str(TOOLS))


def part(name: str) -> ModuleType:
    return importlib.import_module(f"fuzzing.{name}")


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused(tool: ModuleType) -> None:
    result = tool.run(2000, seed=1)
    assert not result.failures
    assert not result.refused
    assert result.cases == 2000
    assert result.growth < 300
    outcomes = {name: set(counts) for name, counts in result.outcomes.items()}
    for name in ("jpeg", "png", "dicom", "roco", "medicat", "coco", "table_csv"):
        assert outcomes[name] in ({"read", "BadImageError"}, {"read", "DataError"}), name


def test_cases_can_be_repeated(tool: ModuleType, tmp_path: Path) -> None:
    seen: list[bytes] = []
    target = tool.Target(
        "x", {"f": b"abcdef" * 50}, lambda root: seen.append((root / "f").read_bytes())
    )
    for first in (0, 3, 3):
        (tmp_path / "f").write_bytes(b"")
        tool.run_case(target, tmp_path, 0, first, tool.Result(outcomes={"x": tool.Counter()}), None)
    assert seen[1] == seen[2] != seen[0]
    assert (tmp_path / "f").read_bytes() == target.files["f"]


def test_mistakes_and_slow_cases_are_noticed(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_root: Path) -> None:
        raise DataError("no")

    def break_down(_root: Path) -> None:
        raise KeyError("a mistake in code")

    monkeypatch.setattr(tool, "LIMIT", 0.01)
    result = tool.Result(outcomes={"x": tool.Counter()})
    for read in (refuse, break_down, lambda _root: time.sleep(0.02)):
        tool.run_case(tool.Target("x", {"f": b"abc"}, read), tmp_path, 0, 0, result, None)
    assert result.outcomes["x"] == {"DataError": 1, "KeyError": 1, "read": 1}
    mistake, slow = result.failures
    assert mistake.startswith("KeyError in ")
    assert slow.startswith("x took more than")
    assert result.failures[mistake][0][0] == "--only x --seed 0 --first 0 --cases 1"


def test_damage_of_png_and_json_gets_past_the_first_check() -> None:
    rng = random.Random(0)
    png = part("images").image_seeds()["png"]
    for _ in range(50):
        damaged = part("damage").damaged_png(png, rng)
        place = 8
        while place < len(damaged):
            length = int.from_bytes(damaged[place : place + 4], "big")
            end = place + 8 + length
            checksum = zlib.crc32(damaged[place + 4 : end])
            assert damaged[end : end + 4] == checksum.to_bytes(4, "big")
            place = end + 4
        lines = (
            part("damage").damaged_json(b'{"a": [1, {"b": 2}]}\r\n{"c": null}\n', rng).split(b"\n")
        )
        for line in lines[:2]:
            json.loads(line.decode(errors="surrogatepass"))


def test_the_command_repeats_a_case() -> None:
    command = [sys.executable, str(TOOLS / "fuzz_data.py"), "--only", "roco,png", "--cases", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("4 cases in ")
