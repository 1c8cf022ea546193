from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from lavis_msmedcap.data_convert.tar_writer import TarWriter

MEMBERS = [("0.jpg", b""), ("0.json", b"x"), ("1.jpg", b"y" * 512), ("ä.png", b"z" * 513)]


def written(members: list[tuple[str, bytes]]) -> tuple[bytes, list[int], str]:
    file = io.BytesIO()
    writer = TarWriter(file)
    offsets = [writer.add(name, data) for name, data in members]
    digest = writer.close()
    assert writer.size == len(file.getvalue())
    return file.getvalue(), offsets, digest


def test_members_are_where_it_says() -> None:
    data, offsets, _ = written(MEMBERS)
    assert offsets == [512, 1024, 2048, 3072]
    for (_, content), offset in zip(MEMBERS, offsets):
        assert data[offset : offset + len(content)] == content
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = tar.getmembers()
        assert [(m.name, m.offset_data) for m in found] == [
            (name, offset) for (name, _), offset in zip(MEMBERS, offsets)
        ]
        files = [tar.extractfile(member) for member in found]
        assert [file and file.read() for file in files] == [content for _, content in MEMBERS]


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 20_000])
def test_the_file_is_what_tarfile_makes(size: int) -> None:
    data, _, digest = written([("a.jpg", b"a" * size)])
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = size
        tar.addfile(info, io.BytesIO(b"a" * size))
    assert data == file.getvalue()
    assert digest == hashlib.sha256(data).hexdigest()


def test_no_members_are_an_empty_file_of_tar() -> None:
    assert written([])[0] == bytes(10240)


def test_a_name_that_does_not_fit_is_refused() -> None:
    written([("n" * 100, b"")])
    with pytest.raises(ValueError, match="name is too long"):
        written([("n" * 101, b"")])
