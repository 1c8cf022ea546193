"""A file that is really called ``a::frame=1.png`` was looked for as frame 1.png of a file a."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_check_trees import jpeg_bytes, picture, put
from PIL import Image

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.data_check.images import examine
from lavis_msmedcap.data_convert.images import ImageSettings, store_image
from lavis_msmedcap.datasets.readers.selection import drop_missing_images
from lavis_msmedcap.datasets.readers.table import read_table
from lavis_msmedcap.imaging.read import read_image

NAMES = ["a::frame=1.png", "a::frame=1", "b.png::slice=0", "a::bytes=1.png", "a::row=0.png"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_that_file(tmp_path: Path, name: str) -> None:
    picture(5).save(tmp_path / name, "PNG")
    picture(6).save(tmp_path / name.partition("::")[0], "PNG")
    table = put(tmp_path / "t.csv", f"image,caption\n{name},CT of the chest.\n")
    (record,) = drop_missing_images(list(read_table(table)), 0.0, "key")
    assert record.image == str(tmp_path / name)
    assert read_image(record.image).tobytes() == picture(5).tobytes()
    assert not examine(record.image).problem
    stored = store_image(record.image, ImageSettings())
    assert stored.data == (tmp_path / name).read_bytes()


def test_without_such_a_file_it_is_a_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    # a file of that name elsewhere, such as where the program was started, is another one
    put(tmp_path / "elsewhere" / "two.tif::frame=1", jpeg_bytes(picture(1)))
    monkeypatch.chdir(tmp_path / "elsewhere")
    table = put(tmp_path / "t.csv", "image,caption\ntwo.tif::frame=1,CT of the chest.\n")
    (record,) = read_table(table)
    assert read_image(record.image).getpixel((0, 0)) == (200, 200, 200)
    with pytest.raises(BadImageError, match="frame=x is no number"):
        read_image(f"{tmp_path}/two.tif::frame=x")
