"""Shards of other people: made with tarfile, in every way that the convention leaves open."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.readers.shard_scan import scan_shard


def jpeg(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (shade, 60, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def pack(path: Path, members, form=tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def about(**facts) -> bytes:
    return json.dumps(facts).encode()


def test_captions_from_every_usual_place(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [
        ("0.jpg", jpeg(0)), ("0.json", about(captions=["One. ", "Two.", "One."])),
        ("1.PNG", jpeg(1)), ("1.json", about(caption="Three.", text="not this")),
        ("2.webp", jpeg(2)), ("2.json", about(text="Four.", caption=None)),
        ("3.jpeg", jpeg(3)), ("3.txt", b"\xef\xbb\xbf Five\r\nlines.\n"),
        ("4.jpg", jpeg(4)), ("4.txt", b"Six."), ("4.json", about(url="http://x", key="4")),
        ("5.jpg", jpeg(5)), ("5.txt", b"not this"), ("5.json", about(caption="Seven.")),
    ])  # fmt: skip
    index = scan_shard(path)
    assert [entry.captions for entry in index.entries] == [
        ("One.", "Two."), ("Three.",), ("Four.",), ("Five\r\nlines.",), ("Six.",), ("Seven.",),
    ]  # fmt: skip
    data = path.read_bytes()
    for number, entry in enumerate(index.entries):
        assert data[entry.offset : entry.offset + entry.size] == jpeg(number)
    assert not index.dropped
    assert not index.notes
    assert index.facts == {"bytes": len(data)}


def test_ids_and_splits(tmp_path: Path) -> None:
    facts = [
        {"image_id": 17, "split": "validation", "domain": "general", "group_id": "PMC1"},
        {"image_id": "x", "split": "dev", "domain": "cartoons", "source": ["roco"]},
        {"image_id": True},
    ]
    members = []
    for number, more in enumerate(facts):
        members += [(f"{number}.jpg", jpeg()), (f"{number}.json", about(caption="A.", **more))]
    first, second, third = scan_shard(pack(tmp_path / "a.tar", members)).entries
    assert (first.image_id, first.split, first.domain, first.group_id) == (
        "17", "val", "general", "PMC1",
    )  # fmt: skip
    assert (second.image_id, second.split, second.domain, second.source) == ("x", None, None, None)
    assert third.image_id is None


def test_the_first_dot_of_the_last_part_divides(tmp_path: Path) -> None:
    index = scan_shard(pack(tmp_path / "a.tar", [
        ("./v1.0/sub/000.jpg", jpeg()), ("./v1.0/sub/000.seg.png", jpeg()),
        ("./v1.0/sub/000.txt", b"A scan."),
        ("other/000.txt", b"Another sample."), ("other/000.jpg", jpeg()),
    ]))  # fmt: skip
    assert [(entry.member, entry.captions) for entry in index.entries] == [
        ("./v1.0/sub/000.jpg", ("A scan.",)),
        ("other/000.jpg", ("Another sample.",)),
    ]
    assert not index.notes


def test_every_irregularity_is_counted(tmp_path: Path) -> None:
    members = [
        ("fine.jpg", jpeg()), ("fine.txt", b"Fine."),
        ("a.txt", b"No image."),
        ("b.jpg", jpeg()),
        ("c.jpg", jpeg()), ("c.txt", b"  \n"),
        ("d.jpg", jpeg()), ("d.json", b'{"caption": "cut'),
        ("e.jpg", jpeg()), ("e.json", b'["a list"]'),
        ("f.jpg", jpeg()), ("f.txt", b"\xff\xfe"),
        ("g.jpg", jpeg()), ("g.png", jpeg()), ("g.txt", b"Two images."),
        ("h.jpg", jpeg()), ("h.txt", b"First."),
        ("README", b"hello"), (".hidden", b""), ("__MACOSX/._h.jpg", b""),
        ("h.jpg", jpeg(9)),
        ("k.jpg", jpeg()), ("k.json", b"[" * 100_000),
    ]  # fmt: skip
    path = pack(tmp_path / "a.tar", members)
    with tarfile.open(path, "a") as archive:
        link, folder = tarfile.TarInfo("link.jpg"), tarfile.TarInfo("folder")
        link.type, link.linkname, folder.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.DIRTYPE
        archive.addfile(link)
        archive.addfile(folder)
    index = scan_shard(path)
    assert [entry.member for entry in index.entries] == ["fine.jpg", "g.jpg", "h.jpg"]
    assert dict(index.dropped) == {
        "without image": 1,
        "without caption": 2,
        "with a text that cannot be read": 4,
        "second member of one name": 1,
    }
    assert dict(index.notes) == {
        "with several images, jpg taken": 1,
        "members without a kind behind a dot, passed over": 3,
        "links and special members, passed over": 1,
    }


def test_captions_behind_all_images_find_theirs(tmp_path: Path) -> None:
    members = [(f"{i}.jpg", jpeg(i)) for i in range(3)]
    members += [(f"{i}.txt", f"Caption {i}.".encode()) for i in range(3)]
    index = scan_shard(pack(tmp_path / "a.tar", members))
    assert [entry.captions for entry in index.entries] == [(f"Caption {i}.",) for i in range(3)]
    assert index.notes["members that do not stand beside their sample's others"] == 3


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_and_other_alphabets(tmp_path: Path, form: int) -> None:
    name = "Röntgen/" + "x" * 200
    path = pack(tmp_path / "a.tar", [(f"{name}.jpg", jpeg()), (f"{name}.txt", b"A.")], form)
    (entry,) = scan_shard(path).entries
    assert entry.member == f"{name}.jpg"
    assert path.read_bytes()[entry.offset :].startswith(jpeg())


@pytest.mark.parametrize("name", ["../../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "C:\\a.jpg"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "a.tar", [("0.jpg", jpeg()), (name, jpeg())])
    with pytest.raises(DataError, match=r"a\.tar, member at byte \d.* is refused"):
        scan_shard(path)


# --- damage --------------------------------------------------------------------------------------


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    members = []
    for number in range(6):
        members += [(f"{number}.jpg", jpeg(number)), (f"{number}.txt", b"A scan.")]
    return pack(tmp_path / "a.tar", members)


@pytest.mark.parametrize("where", ["header", "data", "padding", "between", "inside the end mark"])
def test_a_shard_that_is_cut_off_is_one_clear_error(shard: Path, where: str) -> None:
    with tarfile.open(shard) as archive:
        member = archive.getmember("3.jpg")
        last = archive.getmembers()[-1]
    end = last.offset_data + 512
    size = {
        "header": member.offset + 200,
        "data": member.offset_data + 100,
        "padding": member.offset_data + member.size + 3,
        "between": member.offset,
        "inside the end mark": end + 100,
    }[where]
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(DataError, match=r"a\.tar .*(cut off|damaged).*fetch it again"):
        scan_shard(shard)


def test_a_damaged_header_does_not_end_the_shard_silently(shard: Path) -> None:
    with tarfile.open(shard) as archive:
        offset = archive.getmember("3.jpg").offset
    data = bytearray(shard.read_bytes())
    data[offset + 150] ^= 0xFF  # the checksum
    shard.write_bytes(data)
    with pytest.raises(DataError, match=rf"damaged at byte {offset:,}"):
        scan_shard(shard)


def test_tar_files_put_together_with_cat_are_refused(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes() * 2)
    with pytest.raises(DataError, match="--ignore-zeros"):
        scan_shard(shard)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x1f\x8b" + b"x" * 600])
def test_what_is_no_tar_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar is no whole tar file"):
        scan_shard(path)


def test_an_empty_archive_is_one(tmp_path: Path) -> None:
    assert scan_shard(pack(tmp_path / "a.tar", [])).entries == ()
