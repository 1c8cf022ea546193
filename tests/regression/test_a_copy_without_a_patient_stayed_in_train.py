"""``--fix`` dropped a picture of a test patient, and kept its copy that named no patient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_check_trees import manifest_lines, picture, put
from PIL import Image

from lavis_msmedcap.cli import main

# number of the picture, name, patient, split
ROWS = [
    (1, "a.png", "", "train"),
    (1, "b.bmp", "p7", "train"),
    (2, "c.png", "p7", "test"),
    (1, "d.tif", "p8", "train"),  # so p8 is p7
    (3, "e.png", "p8", "train"),
    (4, "f.png", "p8", "val"),
    (5, "g.png", "p9", "train"),
    (6, "h.png", "", "train"),
    (7, "i.png", "p9", "train"),
]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    rows = ["image,caption,patient_id,split"]
    for number, name, patient, split in ROWS:
        picture(number).save(tmp_path / name)
        rows.append(f"{name},A scan called {name}.,{patient},{split}")
    return put(tmp_path / "t.csv", "\n".join(rows) + "\n")


def names(clean: Path) -> list[str]:
    return sorted(str(row["image_id"])[0] for row in manifest_lines(clean))


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("group", "cghi"), ("image", "acefghi"), ("none", "acefghi")],
)
def test_copies_share_their_patients(
    table: Path, tmp_path: Path, capsys: Any, policy: str, kept: str
) -> None:
    clean = tmp_path / "clean.jsonl"
    assert main(["data", "check", str(table), "--fix", str(clean), "--fix-leaks", policy]) == 1
    told = capsys.readouterr().out
    assert ("left out: leaks into test: tied to it by copies" in told) == (policy == "group")
    assert "".join(names(clean)) == kept


def test_pictures_of_one_value_tie_nobody(table: Path, tmp_path: Path) -> None:
    for name in ("g.png", "c.png"):
        Image.new("RGB", (96, 80), 7).save(tmp_path / name)
    clean = tmp_path / "clean.jsonl"
    main(["data", "check", str(table), "--fix", str(clean)])
    assert names(clean) == ["h", "i"]
