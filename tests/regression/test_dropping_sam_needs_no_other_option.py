"""``model.branches.sam=null`` alone ended in an error: nobody trains on the medical datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.run_config import resolve_run_config

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"


def test_the_datasets_that_are_left_over_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, problems = resolve_run_config(PRETRAIN, ["model.branches.sam=null"])
    assert problems == []
    assert list(config.datasets_cfg) == ["coco2014_caption"]
    assert list(config.run_cfg.valid_splits) == ["val"]
