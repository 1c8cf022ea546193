"""``msmedcap data check`` still told what a missing package had made of an image.

The package was installed meanwhile, but the file had not changed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_check_trees import put

from lavis_msmedcap.cli import main

nibabel = pytest.importorskip("nibabel")


def test_installed_between_two_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    voxels = np.random.default_rng(0).integers(0, 1000, (40, 40, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "head.nii.gz")
    table = put(tmp_path / "t.csv", "image,caption\nhead.nii.gz,MRI of the head.\n")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "nibabel", None)
        assert main(["data", "check", str(table)]) == 1
        assert "images that cannot be decoded" in capsys.readouterr().out
    assert main(["data", "check", str(table)]) == 0
    assert capsys.readouterr().out.endswith("\nno problems\n")
