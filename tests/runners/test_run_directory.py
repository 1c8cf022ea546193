from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners import run_directory
from lavis_msmedcap.runners.open_run import open_run_directory


def test_name_and_result_folder(tmp_path: Path):
    made = open_run_directory(str(tmp_path / "out")).directory
    assert made.root.parent == tmp_path / "out"
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", made.root.name)
    assert made.result.is_dir()


def test_relative_to_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert open_run_directory("out/x").directory.root.parent == tmp_path / "out" / "x"


def test_a_taken_name_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr(run_directory.secrets, "token_hex", lambda _: next(names))
    monkeypatch.setattr(time, "strftime", lambda _: "20240101-000000")
    first, second = (open_run_directory(str(tmp_path)).directory for _ in range(2))
    assert first.root.name == "20240101-000000-aaaaaa"
    assert second.root.name == "20240101-000000-bbbbbb"


def test_a_file_in_the_way_is_a_config_error(tmp_path: Path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match=r"run\.output_dir"):
        open_run_directory(str(tmp_path / "out" / "deeper"))
    with pytest.raises(ConfigError, match=r"run\.output_dir"):
        open_run_directory(str(tmp_path / "out"))
