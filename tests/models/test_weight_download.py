"""Downloads from a real server on this machine: resumed, verified, complete or not there."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer, google_hash

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models import weight_download
from lavis_msmedcap.models.weight_catalog import RemoteFile
from lavis_msmedcap.models.weight_download import CHUNK, download, partial_of, recorded_sha256

CONTENT = random.Random(0).randbytes(3_000_000)
OTHER = random.Random(1).randbytes(3_000_000)
MIDDLE = 16 * CHUNK
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_download, "PAUSES", (0.0, 0.0))


@pytest.fixture
def remote(server: FileServer) -> RemoteFile:
    server.files["/w.pth"] = CONTENT
    return RemoteFile("w.pth", server.url("/w.pth"), len(CONTENT), SHA256)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights" / "w.pth"


def interrupted(server: FileServer, remote: RemoteFile, target: Path) -> None:
    """Leaves a partial file behind, as a process that was stopped does."""
    server.cut_after = [MIDDLE, 0, 0]
    with pytest.raises(WeightsError, match="are kept in"):
        download(remote, target)
    assert partial_of(target).stat().st_size == MIDDLE
    assert not target.exists()
    server.ranges.clear()


def test_the_file_arrives_with_its_checksum(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    download(remote, target)
    assert target.read_bytes() == CONTENT
    assert target.with_name("w.pth.sha256").read_text() == f"{SHA256}  w.pth\n"
    assert recorded_sha256(target) == SHA256
    assert sorted(path.name for path in target.parent.iterdir()) == ["w.pth", "w.pth.sha256"]
    download(remote, target)
    assert server.ranges == [None]  # asked for once


def test_a_cut_connection_is_taken_up_where_it_ended(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    server.cut_after = [MIDDLE + 5, 3 * CHUNK]
    download(remote, target)
    assert server.ranges == [None, f"bytes={MIDDLE}-", f"bytes={MIDDLE + 3 * CHUNK}-"]
    assert target.read_bytes() == CONTENT


def test_the_next_process_takes_up_what_the_last_one_left(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    interrupted(server, remote, target)
    download(remote, target)
    assert server.ranges == [f"bytes={MIDDLE}-"]
    assert target.read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_started_again(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    interrupted(server, remote, target)
    server.files["/w.pth"] = OTHER
    download(RemoteFile("w.pth", remote.url), target)
    assert server.ranges == [f"bytes={MIDDLE}-", None]
    assert target.read_bytes() == OTHER


def test_a_file_that_became_shorter_is_started_again(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    interrupted(server, remote, target)
    server.files["/w.pth"] = b"short"
    download(RemoteFile("w.pth", remote.url), target)
    assert server.ranges == [f"bytes={MIDDLE}-", None]
    assert target.read_bytes() == b"short"


def test_without_a_version_of_the_file_nothing_is_resumed(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    server.tells_versions = False
    server.cut_after = [MIDDLE]
    download(remote, target)
    assert server.ranges == [None, None]
    assert target.read_bytes() == CONTENT


def test_what_came_from_another_address_is_not_resumed(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    interrupted(server, remote, target)
    server.files["/other.pth"] = CONTENT
    download(RemoteFile("w.pth", server.url("/other.pth")), target)
    assert server.ranges == [None]


def test_a_server_without_ranges_sends_all_again(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    interrupted(server, remote, target)
    server.knows_ranges = False
    download(remote, target)
    assert target.read_bytes() == CONTENT


def test_a_partial_file_of_unknown_origin_is_not_trusted(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    target.parent.mkdir(parents=True)
    partial_of(target).write_bytes(OTHER[:1000])
    download(remote, target)
    assert server.ranges == [None]
    assert target.read_bytes() == CONTENT


def test_a_wrong_checksum_is_told_and_nothing_is_kept(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    wrong = RemoteFile("w.pth", remote.url, None, "0" * 64)
    with pytest.raises(WeightsError) as caught:
        download(wrong, target)
    for part in (SHA256, "0" * 64, "w.pth", "altered or damaged"):
        assert part in str(caught.value)
    assert [path.name for path in target.parent.iterdir()] == [".w.pth.lock"]


@pytest.mark.parametrize(
    ("header", "right", "wrong"),
    [
        ("X-Linked-ETag", f'"{SHA256}"', f'"{"0" * 64}"'),
        ("x-goog-hash", google_hash(CONTENT), google_hash(OTHER)),
    ],
)
def test_the_checksum_that_the_server_tells_is_verified(
    server: FileServer, target: Path, header: str, right: str, wrong: str
) -> None:
    server.files["/w.pth"] = CONTENT
    remote = RemoteFile("w.pth", server.url("/w.pth"))
    server.headers = {header: wrong}
    with pytest.raises(WeightsError, match="that of the server"):
        download(remote, target)
    server.headers = {header: right}
    download(remote, target)
    assert target.is_file()


def test_another_size_than_the_published_one_is_refused(
    server: FileServer, remote: RemoteFile, target: Path
) -> None:
    with pytest.raises(WeightsError, match="has 3000000 bytes, expected 17"):
        download(RemoteFile("w.pth", remote.url, 17), target)


def test_a_file_that_is_not_there_is_asked_for_once(server: FileServer, target: Path) -> None:
    with pytest.raises(WeightsError, match="answers 404 Not Found; check the address"):
        download(RemoteFile("w.pth", server.url("/w.pth")), target)
    assert len(server.ranges) == 1


def test_a_busy_server_is_asked_again(server: FileServer, remote: RemoteFile, target: Path) -> None:
    server.statuses = [503, 429]
    download(remote, target)
    assert target.read_bytes() == CONTENT
    server.statuses = [503] * 3
    with pytest.raises(WeightsError, match=r"the server answers 503 \(3 attempts"):
        download(remote, target.with_name("again.pth"))


def test_no_server_is_one_clear_error(server: FileServer, remote: RemoteFile, target: Path) -> None:
    server.close()
    with pytest.raises(WeightsError, match=r"cannot download http://127.*HTTPS_PROXY"):
        download(remote, target)


def test_a_full_disk_is_told_before_the_download(
    remote: RemoteFile, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage: Any = shutil.disk_usage(target.parents[2])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(WeightsError, match=r"w.pth needs 3 MB .* only 1 kB are free"):
        download(remote, target)
    assert not partial_of(target).exists()


def test_a_folder_that_cannot_be_made_names_the_variable(
    remote: RemoteFile, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="set LAVIS_MSMEDCAP_WEIGHTS to another folder"):
        download(remote, tmp_path / "file" / "w.pth")


def test_a_key_in_the_address_is_not_shown(server: FileServer, target: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        download(RemoteFile("w.pth", server.url("/w.pth?token=secret")), target)
    assert "secret" not in str(caught.value)


def test_two_processes_download_once(server: FileServer, remote: RemoteFile, target: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=download, args=(remote, target)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert server.ranges == [None]
    assert target.read_bytes() == CONTENT
