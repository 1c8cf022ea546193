"""``msmedcap data convert`` copied EXIF data with a name in them, and wrote patients' numbers."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_check_trees import picture, put
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lavis_msmedcap.cli import main
from lavis_msmedcap.data_convert.images import COPIED, STRIPPED, ImageSettings, store_image
from lavis_msmedcap.data_convert.metadata import without_metadata
from lavis_msmedcap.imaging.read import read_image

NAME = "DOE^JANE 1956-01-02"
SECRET = NAME.encode()
EXIF_ORIENTATION, EXIF_DESCRIPTION = 0x0112, 0x010E


def exif(orientation: int = 1) -> Image.Exif:
    found = Image.Exif()
    found[EXIF_DESCRIPTION], found[EXIF_ORIENTATION] = NAME, orientation
    return found


def text_chunks() -> PngInfo:
    info = PngInfo()
    info.add_text("Patient", NAME)
    info.add_itxt("Comment", NAME, zip=False)
    return info


def with_thumbnail(data: bytes) -> bytes:
    """Puts a picture of three pixels, which spell a name, into the JFIF head."""
    head = data[4 : 4 + 14 + 2][2:14] + bytes([len(SECRET) // 3 + 1, 1])
    pixels = SECRET.ljust(3 * (len(SECRET) // 3 + 1), b"\0")
    segment = b"\xff\xe0" + struct.pack(">H", 2 + len(head) + len(pixels)) + head + pixels
    return data[:2] + segment + data[2 + 18 :]


SAVED: dict[str, tuple[str, dict[str, Any]]] = {
    "exif.jpg": ("RGB", {"exif": exif()}),
    "comment.jpg": ("L", {"comment": SECRET, "progressive": True}),
    "restarts.jpg": ("RGB", {"comment": SECRET, "restart_marker_blocks": 1}),
    "profile.jpg": ("CMYK", {"icc_profile": SECRET}),
    "xmp.jpg": ("RGB", {"xmp": SECRET}),
    "text.png": ("RGB", {"pnginfo": text_chunks()}),
    "exif.png": ("P", {"exif": exif(), "dpi": (72, 72)}),
    "exif.webp": ("RGB", {"exif": exif(), "xmp": SECRET, "icc_profile": SECRET}),
    "lossless.webp": ("RGBA", {"exif": exif(), "lossless": True}),
}


def saved(path: Path) -> Path:
    mode, options = SAVED[path.name]
    picture(3, (61, 40)).convert(mode).save(path, **options)
    if path.name == "xmp.jpg" and SECRET not in path.read_bytes():  # a Pillow before 11
        data, marker = path.read_bytes(), b"\xff\xe1" + struct.pack(">H", 2 + len(SECRET))
        path.write_bytes(data[:2] + marker + SECRET + data[2:])
    return path


@pytest.mark.parametrize("name", list(SAVED))
def test_a_copy_is_the_picture_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name)
    assert SECRET in path.read_bytes()
    stored = store_image(str(path), ImageSettings())
    assert (stored.suffix, stored.how) == (path.suffix, STRIPPED)
    assert SECRET not in stored.data
    copy = put(tmp_path / f"copy{path.suffix}", stored.data)
    assert read_image(copy).tobytes() == read_image(path).tobytes()
    with Image.open(path) as one, Image.open(copy) as other:
        assert one.mode == other.mode
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert store_image(str(copy), ImageSettings()) == (stored.data, path.suffix, COPIED)


def test_thumbnails_and_what_follows_the_picture_go_too(tmp_path: Path) -> None:
    plain = io.BytesIO()
    picture(1).save(plain, "JPEG")
    for data in (with_thumbnail(plain.getvalue()), plain.getvalue() + SECRET):
        assert SECRET in data
        path = put(tmp_path / "a.jpg", data)
        stored = store_image(str(path), ImageSettings())
        assert (stored.data, stored.how) == (plain.getvalue(), STRIPPED)
    png = io.BytesIO()
    picture(1).save(png, "PNG")
    stored = store_image(str(put(tmp_path / "a.png", png.getvalue() + SECRET)), ImageSettings())
    assert (stored.data, stored.how) == (png.getvalue(), STRIPPED)


@pytest.mark.parametrize("reencode", [None, "png", "jpeg"])
def test_nor_is_it_in_a_picture_that_is_stored_anew(tmp_path: Path, reencode: str | None) -> None:
    path = tmp_path / "turned.jpg"
    picture(2, (64, 48)).save(path, exif=exif(6), comment=SECRET, icc_profile=SECRET)
    stored = store_image(str(path), ImageSettings(reencode=reencode))
    assert stored.how.startswith("stored as ")
    assert SECRET not in stored.data
    with Image.open(io.BytesIO(stored.data)) as copy:
        assert copy.size == (48, 64)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_files_that_end_early_are_refused(form: str) -> None:
    buffer = io.BytesIO()
    picture(4).save(buffer, form)
    whole = buffer.getvalue()
    for length in (0, 1, 10, 20, len(whole) // 2, len(whole) - 3):
        with pytest.raises(ValueError, match=f"(?i){form}|no marker|no end mark|cut off"):
            without_metadata(whole[:length], form)


# --- patients ------------------------------------------------------------------------------------


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """Three patients, one of them in both splits, and two articles."""
    rows = ["image,caption,patient_id,split"]
    groups = ["MRN002", "MRN002", "MRN001", "pmc7770777", "10.1000/ABC.1", "MRN003", ""]
    for number, group in enumerate(groups):
        picture(number).save(tmp_path / f"{number}.jpg", exif=exif())
        rows.append(
            f"{number}.jpg,Chest film {number}.,{group},{'test' if number % 2 else 'train'}"
        )
    return put(tmp_path / "ward.csv", "\n".join(rows) + "\n")


def written_groups(out: Path) -> dict[str, str | None]:
    lines = [line for path in out.glob("*.index.jsonl") for line in path.read_text().splitlines()]
    rows = [json.loads(line) for line in lines]
    return {row["image_id"]: row["group_id"] for row in rows if "image_id" in row}


def test_patients_are_numbers_unless_asked_for(ward: Path, tmp_path: Path, capsys: Any) -> None:
    command = ["data", "convert", str(ward), str(tmp_path / "out"), "--to", "webdataset"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "4 copied without metadata" in told  # of train, and 3 of test
    assert "3 patients (group_id) are written as numbers, such as ward-1" in told
    everything = b"".join(p.read_bytes() for p in (tmp_path / "out").iterdir() if p.is_file())
    assert b"MRN" not in everything
    assert SECRET not in everything
    groups = written_groups(tmp_path / "out")
    assert groups["0.jpg"] == groups["1.jpg"]
    assert len({groups[f"{number}.jpg"] for number in (0, 2, 5)}) == 3
    assert [groups[f"{n}.jpg"] for n in (3, 4, 6)] == ["PMC7770777", "10.1000/abc.1", None]
    assert main(command) == 0
    assert "2 shards were finished before and kept" in capsys.readouterr().out

    command[3] = str(tmp_path / "own")
    assert main([*command, "--keep-group-ids"]) == 0
    assert written_groups(tmp_path / "own")["0.jpg"] == "MRN002"
