"""Beginning a file anew counted as progress, so a server could keep a download going for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_server import FileServer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models import weight_download
from lavis_msmedcap.models.weight_catalog import RemoteFile
from lavis_msmedcap.models.weight_download import CHUNK, download

MANY = 60  # answers, after which the server would let the file through


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_download, "PAUSES", (0.0, 0.0))


def asked_until_given_up(server: FileServer, tmp_path: Path) -> int:
    server.files["/w.pth"] = bytes(20 * CHUNK)
    with pytest.raises(WeightsError, match="3 attempts in a row"):
        download(RemoteFile("w.pth", server.url("/w.pth")), tmp_path / "w.pth")
    return len(server.ranges)


def test_another_version_in_every_answer(server: FileServer, tmp_path: Path) -> None:
    server.new_versions = True
    server.cut_after = [8 * CHUNK] * MANY
    assert asked_until_given_up(server, tmp_path) <= 4


def test_a_body_without_length_or_end(server: FileServer, tmp_path: Path) -> None:
    server.endless = MANY
    assert asked_until_given_up(server, tmp_path) <= 4


def test_an_interrupted_file_that_goes_on_growing_is_not_given_up(
    server: FileServer, tmp_path: Path
) -> None:
    server.files["/w.pth"] = bytes(20 * CHUNK)
    server.cut_after = [CHUNK] * 19
    download(RemoteFile("w.pth", server.url("/w.pth")), tmp_path / "w.pth")
    assert (tmp_path / "w.pth").stat().st_size == 20 * CHUNK
    assert len(server.ranges) == 20
