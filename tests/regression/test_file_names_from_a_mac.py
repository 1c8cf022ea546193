"""Names with accents apart, as macOS writes them, were missing; one NUL byte made UTF-16 of CSV."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from lavis_msmedcap.datasets.readers.sniffing import sniff_encoding
from lavis_msmedcap.datasets.readers.table import read_table


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Röntgen_1.png", "Röntgen_1", "Röntgen_1.PNG", "Füße/é_1.png"])
def test_accents_apart_or_together(tmp_path: Path, on_disk: str, in_table: str, name: str) -> None:
    file = tmp_path / unicodedata.normalize(on_disk, name.replace("PNG", "png"))
    file = file if file.suffix else file.with_suffix(".png")
    file.parent.mkdir(exist_ok=True)
    Image.new("L", (4, 4)).save(file)
    written = unicodedata.normalize(in_table, name)
    (tmp_path / "t.csv").write_text(f"image,caption\n{written},CT\n", encoding="utf-8")
    (record,) = read_table(tmp_path / "t.csv")
    assert record.image == str(file)
    assert record.image_id == written


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["image,caption\na.png,CT\0 of the chest\n", "image,说明\n1.png,胸部CT\n"]
)
def test_a_null_byte_says_nothing_of_the_encoding(tmp_path: Path, encoding: str, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert sniff_encoding(tmp_path / "t.csv") == encoding
