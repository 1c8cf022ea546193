from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.checkpoints import find_checkpoint, read_checkpoint, save_checkpoint


def test_round_trip_is_bit_identical(tmp_path: Path) -> None:
    state = {"a": torch.randn(3, 4), "b": torch.randn(2).half()}
    save_checkpoint(tmp_path / "c.safetensors", state, {"epoch": "3"})
    loaded, metadata = read_checkpoint(tmp_path / "c.safetensors")
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert metadata["epoch"] == "3"
    (tmp_path / "plain").touch()
    assert (tmp_path / "c.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_failed_write_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "c.safetensors"
    save_checkpoint(target, {"a": torch.ones(1)}, {})

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lavis_msmedcap.models.checkpoints.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(target, {"a": torch.zeros(1)}, {})
    assert torch.equal(read_checkpoint(target)[0]["a"], torch.ones(1))
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_newest_run_and_best_checkpoint_are_found(tmp_path: Path) -> None:
    for run, names in {
        "20260101-000000-aaaaaa": ["checkpoint_best", "checkpoint_last"],
        "20260102-000000-bbbbbb": ["checkpoint_last"],
        "20260103-000000-cccccc": [],
    }.items():
        (tmp_path / run).mkdir()
        for name in names:
            save_checkpoint(tmp_path / run / f"{name}.safetensors", {"a": torch.ones(1)}, {})
    newest = tmp_path / "20260102-000000-bbbbbb" / "checkpoint_last.safetensors"
    assert find_checkpoint(tmp_path) == newest
    best = tmp_path / "20260101-000000-aaaaaa" / "checkpoint_best.safetensors"
    assert find_checkpoint(best.parent) == best
    assert find_checkpoint(best) == best


def test_missing_foreign_and_damaged_files_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint at"):
        find_checkpoint(tmp_path / "nowhere")
    save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match="was not written by lavis_msmedcap"):
        read_checkpoint(tmp_path / "foreign.safetensors")
    save_checkpoint(tmp_path / "cut.safetensors", {"a": torch.ones(1000)}, {})
    data = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match="is damaged"):
        read_checkpoint(tmp_path / "cut.safetensors")
