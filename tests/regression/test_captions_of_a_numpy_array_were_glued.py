"""``['axial ct' 'nodule']``, as numpy writes a list, became one caption."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from lavis_msmedcap.datasets.readers.table import read_table

CAPTIONS = ("axial ct of the chest", "patient's nodule, 3 mm", 'a "halo" sign', "back\\slash")


@pytest.mark.parametrize(
    "written",
    [
        str(np.array(CAPTIONS)),
        str(np.array(CAPTIONS, dtype=object)),
        str(list(CAPTIONS)),
        f"[{', '.join(map(repr, CAPTIONS))},]",
    ],
)
def test_every_caption_is_its_own(tmp_path: Path, written: str) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], ["a.png", written]])
    (record,) = read_table(tmp_path / "t.csv")
    assert record.captions == CAPTIONS


@pytest.mark.parametrize("text", ["['a' b]", "['a'] and ['b']", "['a' 'b\\x']"])
def test_what_is_no_list_is_a_caption(tmp_path: Path, text: str) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "caption"], ["a.png", text]])
    (record,) = read_table(tmp_path / "t.csv")
    assert record.captions == (text,)
