from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.data_convert.images import (
    COPIED,
    ImageSettings,
    store_image,
    why_not_plain,
)
from lavis_msmedcap.imaging.read import read_image
from lavis_msmedcap.imaging.views import make_sam_view

AS_THEY_ARE = ImageSettings()


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        (".jpg", "RGB"),
        (".jpg", "L"),
        (".jpg", "CMYK"),
        (".png", "P"),
        (".png", "RGBA"),
        (".png", "1"),
        (".webp", "RGB"),
    ],
)
def test_plain_files_are_copied_byte_for_byte(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"a{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)
    stored = store_image(str(path), AS_THEY_ARE)
    assert stored == (path.read_bytes(), suffix, COPIED)
    assert why_not_plain(str(path)) == ""


def test_the_format_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.new("RGB", (4, 4)).save(path, "PNG")
    assert store_image(str(path), AS_THEY_ARE).suffix == ".png"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("deep.png", "PNG of 16 bits"),
        ("moving.gif", "GIF"),
        ("moving.webp", "WEBP of several frames"),
        ("page.tif", "TIFF"),
        ("scan.dcm", "DICOM"),
    ],
)
def test_everything_else_is_stored_as_the_pixels_that_training_sees(
    strange: dict[str, Path], name: str, why: str
) -> None:
    stored = store_image(str(strange[name]), AS_THEY_ARE)
    assert stored.how == f"stored as PNG: {why}"
    assert stored.suffix == ".png"
    expected = read_image(strange[name])
    assert np.array_equal(np.asarray(decoded(stored.data).convert("RGB")), np.asarray(expected))


def test_of_a_scan_nothing_but_the_pixels_is_stored(strange: dict[str, Path]) -> None:
    assert b"Doe" in strange["scan.dcm"].read_bytes()
    assert b"Doe" not in store_image(str(strange["scan.dcm"]), AS_THEY_ARE).data


def test_frames_are_images_of_their_own(strange: dict[str, Path]) -> None:
    places = [f"{strange['scan.dcm']}::frame={frame}" for frame in (0, 1)]
    first, second = (store_image(place, AS_THEY_ARE) for place in places)
    assert first.how == "stored as PNG: frame of a .dcm file"
    assert first.data != second.data


def test_a_picture_in_a_table_is_copied(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)  # may want a newer NumPy
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    buffer = io.BytesIO()
    Image.new("RGB", (9, 5), (10, 200, 30)).save(buffer, "JPEG")
    cells = [{"bytes": buffer.getvalue(), "path": None}]
    parquet.write_table(pyarrow.table({"image": cells}), tmp_path / "a.parquet")
    stored = store_image(f"{tmp_path / 'a.parquet'}::row=0@image", AS_THEY_ARE)
    assert stored == (buffer.getvalue(), ".jpg", COPIED)


def test_grey_is_stored_as_grey_and_not_three_times(strange: dict[str, Path]) -> None:
    stored = store_image(str(strange["deep.png"]), AS_THEY_ARE)
    assert decoded(stored.data).mode == "L"
    assert decoded(store_image(str(strange["page.tif"]), AS_THEY_ARE).data).mode == "RGB"


def test_members_of_a_tar_file_are_copied_too(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 5), (10, 200, 30)).save(buffer, "JPEG")
    inside = buffer.getvalue()
    (tmp_path / "x.tar").write_bytes(b"\1" * 512 + inside + b"\2" * 99)
    place = f"{tmp_path / 'x.tar'}::bytes=512+{len(inside)}"
    assert store_image(place, AS_THEY_ARE) == (inside, ".jpg", COPIED)


@pytest.mark.parametrize("size", [(2000, 1333), (700, 1999), (1025, 13)])
def test_scaled_to_1024_the_sam_view_is_the_same_to_the_bit(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "large.jpg"
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    stored = store_image(str(path), ImageSettings(max_side=1024))
    assert stored.how == "stored as PNG: scaled down to 1024 px"
    small = decoded(stored.data).convert("RGB")
    assert max(small.size) == 1024
    before, after = make_sam_view(read_image(path), 1024), make_sam_view(small, 1024)
    assert before[1] == after[1]
    assert torch.equal(before[0], after[0])


def test_a_smaller_image_is_not_scaled(tmp_path: Path) -> None:
    path = tmp_path / "small.jpg"
    Image.new("RGB", (1024, 700)).save(path)
    assert store_image(str(path), ImageSettings(max_side=1024)).how == COPIED


@pytest.mark.parametrize(
    ("kind", "suffix", "form"), [("png", ".png", "PNG"), ("jpeg", ".jpg", "JPEG")]
)
def test_all_anew_if_asked_for(tmp_path: Path, kind: str, suffix: str, form: str) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20), (200, 10, 10)).save(path)
    stored = store_image(str(path), ImageSettings(reencode=kind))
    assert (stored.suffix, stored.how) == (suffix, f"stored as {kind.upper()}: asked for")
    assert decoded(stored.data).format == form
    assert stored == store_image(str(path), ImageSettings(reencode=kind))


def test_half_a_file_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadImageError, match=str(path)):
        store_image(str(path), AS_THEY_ARE)


def test_what_other_programs_overlook_is_stored_as_it_is_seen(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise[..., :3]).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(noise).save(tmp_path / "clear.png")
    Image.fromarray(noise[..., :3]).quantize(8).save(tmp_path / "palette.png", transparency=0)
    reasons = {
        "turned.jpg": "JPEG turned by EXIF",
        "clear.png": "PNG with transparency",
        "palette.png": "PNG with transparency",
    }
    for name, reason in reasons.items():
        path = str(tmp_path / name)
        assert why_not_plain(path) == reason
        stored = store_image(path, AS_THEY_ARE)
        assert stored.how == f"stored as PNG: {reason}"
        naive = Image.open(io.BytesIO(stored.data)).convert("RGB")
        assert naive.tobytes() == read_image(path).tobytes()
