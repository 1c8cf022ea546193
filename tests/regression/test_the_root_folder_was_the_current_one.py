"""``/a.png`` and ``a.png`` in the current folder were taken for one image."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.datasets.readers.identity import ImageKeys
from lavis_msmedcap.datasets.records import MedCapRecord


def test_they_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = ImageKeys()
    root, here = (
        keys.image(MedCapRecord(image, ("CT.",), "i", "train", None, "mine", "medical"))
        for image in ("/a.png", "a.png")
    )
    assert root == "/a.png"
    assert here == f"{tmp_path.resolve()}/a.png"
