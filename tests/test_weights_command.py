"""``msmedcap weights``: the catalog on this machine, and downloads from a server on it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from file_server import FileServer

from lavis_msmedcap import cli
from lavis_msmedcap.models import weight_catalog, weight_files
from lavis_msmedcap.models.weight_catalog import CatalogEntry, RemoteFile
from lavis_msmedcap.train import EXIT_WRONG_INPUT


@pytest.fixture(autouse=True)
def catalog(
    server: FileServer, empty_places: None, monkeypatch: pytest.MonkeyPatch
) -> dict[str, CatalogEntry]:
    """A file with a published checksum and a folder without, on a server of this machine."""
    server.files = {"/vit.pth": b"vit", "/bert/vocab.txt": b"vocab", "/bert/m.bin": b"bert"}
    sha256 = hashlib.sha256(b"vit").hexdigest()
    vit = RemoteFile("vit.pth", server.url("/vit.pth"), 3, sha256)
    bert = tuple(RemoteFile(p[1:], server.url(p)) for p in server.files if p.startswith("/bert"))
    entries = {
        "vit": CatalogEntry("vit", "a ViT", (vit,)),
        "bert": CatalogEntry("bert", "a BERT", bert, "m.bin"),
    }
    for module in (weight_catalog, weight_files):
        monkeypatch.setattr(module, "CATALOG", entries)
    return entries


def test_list_tells_what_is_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    assert f"looked for in {tmp_path}/weights, {tmp_path}/cache/weights\n" in out
    assert out.count(" missing\n") == 2
    assert cli.main(["weights", "get", "vit"]) == 0
    (tmp_path / "weights" / "bert").mkdir(parents=True)
    assert cli.main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    assert f"found: {tmp_path}/cache/weights/vit.pth\n" in out
    assert f"incomplete: {tmp_path}/weights/bert lacks vocab.txt, m.bin\n" in out


def test_get_downloads_once(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.url("/vit.pth")
    for _ in range(2):
        assert cli.main(["weights", "get", "vit", "bert", address]) == 0
        lines = capsys.readouterr().out.splitlines()
        weights = tmp_path / "cache" / "weights"
        assert lines == [
            f"vit: {weights}/vit.pth",
            f"bert: {weights}/bert",
            f"{address}: {weights}/vit.pth",
        ]
    assert len(server.ranges) == 3
    assert (weights / "bert" / "m.bin").read_bytes() == b"bert"


def test_get_to_a_folder_to_carry_away(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["weights", "get", "vit", "bert"]) == 0
    assert cli.main(["weights", "get", "vit", "bert", "--to", "stick"]) == 0
    assert sorted(p.name for p in (tmp_path / "stick").iterdir()) == [
        "bert",
        "vit.pth",
        "vit.pth.sha256",
    ]
    # on the machine without a network it is found as weights/, or under the variable
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "other"))
    assert weight_files.find("vit") is None
    monkeypatch.setenv("LAVIS_MSMEDCAP_WEIGHTS", str(tmp_path / "stick"))
    assert weight_files.find("vit") == tmp_path / "stick" / "vit.pth"


def test_an_unknown_name_is_told_before_anything_is_downloaded(
    server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["weights", "get", "vit", "berd"]) == EXIT_WRONG_INPUT
    assert "did you mean bert?" in capsys.readouterr().err
    assert server.ranges == []


def test_verify_finds_what_was_altered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "get", "vit", "bert"]) == 0
    assert cli.main(["weights", "list", "--verify"]) == 0
    out = capsys.readouterr().out
    assert "vit.pth: sha256 as published" in out
    assert "m.bin: sha256 as downloaded" in out
    folder = tmp_path / "cache" / "weights"
    for file in (folder / "vit.pth", folder / "bert" / "m.bin"):
        good = file.read_bytes()
        file.write_bytes(b"bad")
        assert cli.main(["weights", "list", "--verify"]) == 1
        assert f"WRONG {file.name}" in capsys.readouterr().out
        file.write_bytes(good)
    (folder / "bert" / "m.bin.sha256").unlink()
    assert cli.main(["weights", "list", "--verify"]) == 0
    assert "nothing to compare it with" in capsys.readouterr().out
