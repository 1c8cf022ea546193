"""A file of another size than the published one used to be "found", by all but ``--verify``."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap import cli

NAME, FILE = "sam_vit_b", "sam_vit_b_01ec64.pth"


@pytest.fixture(autouse=True)
def half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / FILE
    path.write_bytes(b"0123456789")
    monkeypatch.setenv("LAVIS_MSMEDCAP_WEIGHTS", str(tmp_path))
    return path


@pytest.mark.parametrize(
    ("words", "code"), [(["doctor"], 1), (["weights", "list"], 1), (["weights", "get", NAME], 2)]
)
def test_every_command_tells(
    half_a_file: Path, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == code
    told = capsys.readouterr()
    assert f"{half_a_file} has 10 bytes, the published file 375,042,383" in told.out + told.err
    assert half_a_file.read_bytes() == b"0123456789"  # nothing is replaced unasked
