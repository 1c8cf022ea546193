from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.members import member_range, read_member
from lavis_msmedcap.imaging.places import parse_place
from lavis_msmedcap.imaging.read import read_image


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    buffer = io.BytesIO()
    Image.new("RGB", (7, 5), (200, 10, 60)).save(buffer, "PNG")
    path = tmp_path / "a.tar"
    path.write_bytes(b"x" * 100 + buffer.getvalue() + b"y" * 100)
    return path


def test_the_named_bytes_and_no_others(shard: Path) -> None:
    size = shard.stat().st_size - 200
    data = read_member(parse_place(f"{shard}::bytes=100+{size}"))
    assert data == shard.read_bytes()[100:-100]


def test_an_image_in_a_file_of_many(shard: Path) -> None:
    size = shard.stat().st_size - 200
    image = read_image(f"{shard}::bytes=100+{size}")
    assert (image.size, image.getpixel((3, 3))) == ((7, 5), (200, 10, 60))
    with pytest.raises(BadImageError, match=rf"a\.tar::bytes=0\+{size}.*begins with b'xxx"):
        read_image(f"{shard}::bytes=0+{size}")


@pytest.mark.parametrize("value", ["12", "a+b", "-1+5", "1+-5", "+", "1+2+3", "9" * 40 + "+1"])
def test_what_is_no_range_is_told(value: str) -> None:
    with pytest.raises(BadImageError, match=r"not begin\+length"):
        member_range(parse_place(f"/x.tar::bytes={value}"))


def test_a_file_that_ends_early_or_is_not_there(shard: Path) -> None:
    with pytest.raises(BadImageError, match="ends 90 bytes too early"):
        read_member(parse_place(f"{shard}::bytes={shard.stat().st_size - 10}+100"))
    with pytest.raises(BadImageError, match="No such file"):
        read_member(parse_place("/nowhere.tar::bytes=0+100"))
