"""Trackers beside TensorBoard; those of wandb and mlflow need their packages."""

from __future__ import annotations

import csv
import importlib.util
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners.event_files import EventFiles
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.runners.settings import TRACKER_NAMES, RunSettings
from lavis_msmedcap.runners.trackers import (
    TRACKERS,
    Trackers,
    missing_trackers,
    open_trackers,
    shareable,
)
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

CONFIG = {
    "scale": "demo",
    "model": {
        "arch": "tiny",
        "prompt": "Question: Describe the image. Answer:",
        "stage1": "output/msmedcap/pretrain",
        "finetuned": "mine.safetensors",
        "llm": {"weights": "facebook/opt-2.7b", "precision": "bf16"},
    },
    "datasets": {
        "coco": {"domain": "general"},
        "ward_b": {"domain": "medical", "build_info": {"table": "patients", "columns": {"a": "b"}}},
    },
}


class Remembers:
    """Keeps what it gets; fails from a step on."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.rows: list[tuple[str, int, dict[str, Any]]] = []
        self.fails_at = fails_at
        self.complete: bool | None = None

    def write(self, group: str, step: int, numbers: Mapping[str, object]) -> None:
        if step >= self.fails_at:
            raise ConnectionError("the server is gone")
        self.rows.append((group, step, dict(numbers)))

    def close(self, complete: bool = True) -> None:
        self.complete = complete


def made_here(monkeypatch: pytest.MonkeyPatch, open_tracker: Any) -> None:
    """Puts a tracker in the place of wandb."""
    monkeypatch.setitem(TRACKERS, "wandb", ("made_here", ("json", "wandb")))
    module = SimpleNamespace(open_tracker=open_tracker)
    monkeypatch.setitem(sys.modules, "made_here", module)


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def runner_of(tiny: ModuleType, folder: Path, task: Any = None, **run: Any) -> RunnerMSMedCap:
    sections = {
        "model": {"arch": "tiny"},
        "datasets": {"coco": {"domain": "general", "build_info": {"root": "/secret/place"}}},
        "run": {
            "output_dir": str(folder / "runs"),
            "max_epoch": 2,
            "batch_size_train": 4,
            "batch_size_eval": 4,
            "log_freq": 1,
            "device": "cpu",
            "valid_splits": ["val"],
            "test_splits": ["test"],
            **run,
        },
    }
    whole: Any = OmegaConf.create(sections)
    config = SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )
    data = {
        split: tiny.TinyDataset("coco", "general", 8, split) for split in ("train", "val", "test")
    }
    task = MixedSemanticPretrainTask() if task is None else task
    return RunnerMSMedCap(config, task, tiny.TinyModel(), {"coco": data}, "job")


def test_every_name_has_a_module() -> None:
    assert tuple(TRACKERS) == TRACKER_NAMES
    assert all(importlib.util.find_spec(module) for module, _ in TRACKERS.values())


def test_nothing_that_may_be_a_place_is_shared(tmp_path: Path) -> None:
    assert shareable({**CONFIG, "here": str(tmp_path), "run": {"lr": 1e-4, "x": None}}) == {
        "scale": "demo",
        "model": {
            "arch": "tiny",
            "prompt": "Question: Describe the image. Answer:",
            "llm": {"precision": "bf16"},
        },
        "datasets": {"coco": {"domain": "general"}, "ward_b": {"domain": "medical"}},
        "run": {"lr": 1e-4},
    }


def test_the_default_is_none_and_a_misspelt_name_is_told() -> None:
    assert RunSettings.from_run_cfg({}).trackers == ()
    with pytest.raises(ConfigError, match=r"run\.trackers 'wanbd' is unknown.*'wandb'"):
        RunSettings.from_run_cfg({"trackers": ["wanbd"]})


def test_a_missing_package_is_told_before_anything_is_made(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", (TRACKERS["wandb"][0], ("no_such_module", "wandb")))
    assert missing_trackers(["mlflow"]) == [] or not importlib.util.find_spec("mlflow")
    with pytest.raises(ConfigError, match="not installed: pip install wandb"):
        runner_of(tiny, tmp_path, trackers=["wandb"])
    assert not (tmp_path / "runs").exists()


def test_one_that_fails_costs_nothing_but_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Remembers(), Remembers(fails_at=2)
    both = Trackers(EventFiles(tmp_path / "tb"), {"good": good, "bad": bad})
    for step in (1, 2, 3):
        both.write("train", step, {"loss": 0.5, "note": "text", "broken": float("nan")})
    both.close(complete=False)
    assert good.rows == [("train", step, {"loss": 0.5}) for step in (1, 2, 3)]
    assert len(bad.rows) == 1
    assert caplog.text.count("bad failed at step 2 and gets nothing more") == 1
    assert (good.complete, bad.complete) == (False, None)
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert len(events.Scalars("train/loss")) == 3


def test_one_that_does_not_start_is_an_error_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> None:
        raise PermissionError("no API key")

    made_here(monkeypatch, refuses)
    with pytest.raises(ConfigError, match=r"wandb does not start \(PermissionError: no API key\)"):
        open_trackers(["wandb"], RunDirectory(tmp_path), {}, 0)
    assert list(tmp_path.iterdir()) == []


def test_a_run_gives_its_training_validation_and_test(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Remembers()

    def opens(_: Path, config: dict[str, Any]) -> Remembers:
        assert "secret" not in str(config)
        assert str(tmp_path) not in str(config)
        return kept

    made_here(monkeypatch, opens)
    runner = runner_of(tiny, tmp_path, trackers=["wandb"])
    runner.train()
    with (Path(runner.output_dir) / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    training = [(step, row) for group, step, row in kept.rows if group == "train"]
    assert [step for step, _ in training] == [int(row["step"]) for row in table] == [1, 2, 3, 4]
    assert [row["loss"] for _, row in training] == pytest.approx(
        [float(row["loss"]) for row in table]
    )
    others = [(group, step) for group, step, _ in kept.rows if group != "train"]
    assert others == [("val", 2), ("val", 4), ("test", 4)]
    assert kept.complete is True


def test_a_training_that_breaks_off_is_told_so(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(MixedSemanticPretrainTask):
        def valid_step(self, *_: Any) -> Any:
            raise RuntimeError("power cut")

    kept = Remembers()
    made_here(monkeypatch, lambda *_: kept)
    with pytest.raises(RuntimeError, match="power cut"):
        runner_of(tiny, tmp_path, Breaks(), trackers=["wandb"]).train()
    assert kept.complete is False


# --- the packages themselves -------------------------------------------------------------------


def test_wandb_writes_offline_into_the_run_directory(tiny: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs wandb")
    runner = runner_of(tiny, tmp_path, trackers=["wandb"])
    runner.train()
    root = Path(runner.output_dir)
    (record,) = (root / "wandb").glob("offline-run-*/*.wandb")
    assert "gets nothing more" not in (root / "log.txt").read_text()
    until = time.monotonic() + 60
    content = record.read_bytes()
    while b"test/loss" not in content and time.monotonic() < until:
        time.sleep(0.2)  # a process of wandb's own writes it, after the run has ended here
        content = record.read_bytes()
    for name in (b"train/loss", b"train/coco/clip/loss_lm", b"val/loss", b"test/loss"):
        assert name in content
    assert root.name.encode() in content
    assert b"batch_size_train" in content
    private = (str(tmp_path), "/secret/place", "caption 1", "coco_train_001", "pytest")
    assert [word for word in private if word.encode() in content] == []


def test_mlflow_writes_files_into_the_run_directory(tiny: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    from mlflow import MlflowClient

    class Breaks(MixedSemanticPretrainTask):
        left = 2  # validations

        def after_evaluation(self, *args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if not self.left:
                raise RuntimeError("power cut")
            return super().after_evaluation(*args, **kwargs)

    first = runner_of(tiny, tmp_path, Breaks(), trackers=["mlflow"])
    with pytest.raises(RuntimeError, match="power cut"):
        first.train()
    assert first._open.lock is not None
    first._open.lock.release()
    client = MlflowClient(tracking_uri=(Path(first.output_dir) / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("msmedcap")
    assert experiment is not None
    (broken,) = client.search_runs([experiment.experiment_id])
    assert broken.info.status == "KILLED"

    runner = runner_of(tiny, tmp_path, trackers=["mlflow"], resume="auto")
    assert runner.output_dir == first.output_dir
    runner.train()
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == broken.info.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", Path(runner.output_dir).name)
    steps = [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == [1, 2, 3, 4]
    assert "test/loss" in run.data.metrics
    assert run.data.params["run.batch_size_train"] == "4"
    facts = str(run.to_dictionary()["data"])
    private = (str(tmp_path), "/secret/place", "caption 1", "coco_train_001", "pytest")
    assert [word for word in private if word in facts] == []
