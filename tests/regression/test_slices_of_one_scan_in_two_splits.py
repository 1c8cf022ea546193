"""Slices of one volume in train and test were no leak for ``msmedcap data check``.

The splits that training draws have always kept them together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_check_trees import manifest_lines, put, record
from dicom_files import make_dicom, save

from lavis_msmedcap.cli import main
from lavis_msmedcap.data_check.leaks import SCAN, leaks

ROWS = [(0, "train"), (1, "train"), (2, "test"), (3, "val")]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of the frames of one scan; no column names the patient."""
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    frames = np.random.default_rng(0).integers(0, 4096, (4, 64, 64)).astype(np.int16)
    save(make_dicom(frames, NumberOfFrames=4), tmp_path / "scan.dcm")
    rows = [f"scan.dcm::frame={frame},CT frame {frame}.,{split}" for frame, split in ROWS]
    return put(tmp_path / "t.csv", "image,caption,split\n" + "\n".join(rows) + "\n")


def test_they_are_a_leak_and_can_be_taken_out(table: Path, tmp_path: Path, capsys: Any) -> None:
    clean = tmp_path / "clean.jsonl"
    assert main(["data", "check", str(table), "--fix", str(clean)]) == 1
    told = capsys.readouterr().out
    assert "test images from a scan that train has other slices or frames of" in told
    assert "val images from a scan that train has other slices or frames of" in told
    assert "left out: leaks into test: same scan" in told
    assert [row["split"] for row in manifest_lines(clean)] == ["test"]
    assert main(["data", "check", str(clean)]) == 0


def test_as_images_of_their_own_they_stay(table: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean.jsonl"
    main(["data", "check", str(table), "--fix", str(clean), "--fix-leaks", "image"])
    assert len(manifest_lines(clean)) == len(ROWS)


def test_a_volume_and_a_slice_of_it_are_one_scan() -> None:
    records = [
        record(0, "train", image="/a/head.nii.gz"),
        record(1, "test", image="/a/head.nii.gz::slice=3"),
        record(2, "test", image="/a/foot.nii.gz::slice=3"),
        record(3, "train", image="/a/foot.nii.gz::slice=3"),
        record(4, "train", image="/a/x.tar::bytes=0+9"),
        record(5, "test", image="/a/x.tar::bytes=9+9"),
        record(6, "train", image="/a/two.dcm::frame=0"),
        record(7, "train", image="/a/two.dcm::frame=1"),
    ]
    assert [leak.indices for leak in leaks(records).of_kind(SCAN)] == [(0, 1)]
