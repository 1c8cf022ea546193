"""Two processes must train as one does on the joint batch."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image


def start(tiny: ModuleType, mode: str, folder: Path, timeout: float) -> list[dict[str, Any]]:
    """Runs the worker on all ranks and returns what each found."""
    worker = Path(__file__).with_name("ddp_worker.py")
    tiny.load_beside("processes").run_ranks(worker, mode, str(folder), timeout=timeout)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def worker(tiny: ModuleType) -> ModuleType:
    """The worker's functions, for the joint run in this process."""
    return tiny.load_beside("ddp_worker")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def ranks(tiny: ModuleType, folder: Path) -> list[dict[str, Any]]:
    return start(tiny, "loop", folder, timeout=300)


@pytest.mark.parametrize(
    ("name", "joint"),
    [("plain", {"batch_size": 8}), ("accumulated", {"batch_size": 4, "accumulate": 3})],
)
def test_two_processes_equal_the_joint_batch(
    ranks: list[dict[str, Any]], worker: ModuleType, name: str, joint: dict[str, int]
):
    expected = worker.train_loop(**joint)
    assert expected["error"] is None
    for rank in ranks:
        found = rank[name]
        assert len(found["means"]) == len(expected["means"]) > 0
        for ours, theirs in zip(found["means"], expected["means"]):
            assert ours == pytest.approx(theirs, abs=1e-5)
        assert found["norms"] == pytest.approx(expected["norms"], abs=1e-5)
        assert found["images"] == expected["images"]
        for parameter, values in expected["weights"].items():
            assert found["weights"][parameter] == pytest.approx(values, abs=1e-6)
    assert ranks[0][name]["weights"] == ranks[1][name]["weights"]


def test_windows_mixed_domains_in_the_accumulated_run(worker: ModuleType):
    """Else the test above would not show that a branch unused in the last batch is exchanged."""
    means = worker.train_loop(batch_size=4, accumulate=3)["means"]
    mixed = [m for m in means if "coco/sam/loss_lm" in m and "roco/sam/loss_lm" in m]
    assert mixed


def test_a_nan_on_one_rank_stops_all_with_the_same_message(ranks: list[dict[str, Any]]):
    first, second = (rank["poisoned"]["error"] for rank in ranks)
    assert first == second
    assert "roco_train_002" in first["image_ids"]
    assert len(first["image_ids"]) == 4  # only the batch of the rank at fault
    assert ranks[0]["poisoned"]["weights"] == ranks[1]["poisoned"]["weights"]


def test_skipped_images_are_counted_over_all_ranks(ranks: list[dict[str, Any]]):
    first, second = (rank["skipped"] for rank in ranks)
    assert first == second
    assert first["seen"] == {"roco": {"images": {"both.png": "empty"}, "samples": 3}}
    assert first["error"].startswith("3 of 16 training images of roco cannot be read")


def test_each_rank_keeps_its_own_traceback(ranks: list[dict[str, Any]], folder: Path):
    assert [rank["failing"]["error"] for rank in ranks] == ["'and here'", "only here"]
    [directory] = (folder / "failing").iterdir()
    first, second = ((directory / f"{n}.txt").read_text() for n in ("log", "log-rank1"))
    assert "KeyError: 'and here'" in first
    assert "only here" not in first
    assert second.count("Traceback") == 1
    assert second.rstrip().endswith("RuntimeError: only here")
    assert "INFO" not in second


def test_ranks_share_the_look_at_images_and_fail_with_one_message(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (8, 6), (9, 9, 9)).save(tmp_path / "sound", "PNG")
    names = [f"{number}.png" for number in range(6)]
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "sound").read_bytes())
    for name in names[2:4]:  # one on each rank
        (tmp_path / name).write_bytes(b"<html>")
    first, second = start(tiny, "images", tmp_path, timeout=300)
    assert first["errors"] == second["errors"]
    (error,) = first["errors"]
    assert error.startswith("2 evaluation image(s) cannot be read")
    assert all(str(tmp_path / name) in error for name in names[2:4])
    # each image by one rank; those that were sound, and are as they were, once
    assert sorted(first["seen"][0] + second["seen"][0]) == names
    assert sorted(first["seen"][1] + second["seen"][1]) == names[2:4]
    assert first["seen"][2] == second["seen"][2] == []


@pytest.mark.slow
def test_whole_runs_on_two_processes(tiny: ModuleType, tmp_path: Path):
    first, second = start(tiny, "runs", tmp_path, timeout=300)
    assert first == second
    for name in ("pretrain", "caption"):
        [directory] = (tmp_path / name).iterdir()
        assert first[name]["directory"] == str(directory)
        files = {path.name for path in directory.iterdir()}
        assert {"config.yaml", "log.txt", "metrics.csv", "checkpoint_best.safetensors"} <= files
        log = (directory / "log.txt").read_text()
        assert log.count("epoch 1/2, step 2/") == 1
    [caption] = (tmp_path / "caption").iterdir()
    predictions = json.loads((caption / "result" / "predictions_val.json").read_text())
    # five images per dataset on two ranks: one is evaluated twice and kept once
    assert [p["image_id"] for p in predictions] == [
        f"{name}_val_{index:03d}" for name in ("coco", "roco") for index in range(5)
    ]
