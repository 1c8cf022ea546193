"""Which epoch is the best, and when a training ends before its time."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.runners.run_status import read_status
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.runners.training import Selection
from lavis_msmedcap.tasks._base import MSMedCapTask


class Scripted(MSMedCapTask):
    """Gives the results that a test asks for, one per validation; stops at a number of them."""

    def __init__(self, results: list[dict[str, Any]], stop_at: int = 0):
        super().__init__()
        self.results = list(results)
        self.calls = 0
        self.stop_at = stop_at

    def valid_step(self, _model: Any, samples: Any) -> list[dict[str, Any]]:
        return [{"image_id": image_id} for image_id in samples["image_id"]]

    def after_evaluation(self, **_: Any) -> Any:
        self.calls += 1
        if self.calls == self.stop_at:
            raise RuntimeError("power cut")
        return self.results.pop(0)


def make(tiny: ModuleType, folder: Path, task: Any, **run: Any) -> RunnerMSMedCap:
    sections = {
        "model": {"arch": "tiny"},
        "datasets": {"coco": {"domain": "general"}},
        "run": {
            "output_dir": str(folder),
            "max_epoch": 6,
            "batch_size_train": 4,
            "batch_size_eval": 4,
            "device": "cpu",
            "valid_splits": ["val"],
            **run,
        },
    }
    whole: Any = OmegaConf.create(sections)
    config = SimpleNamespace(
        config=whole, run_cfg=whole.run, model_cfg=whole.model, datasets_cfg=whole.datasets
    )
    data = {split: tiny.TinyDataset("coco", "general", 8, split) for split in ("train", "val")}
    return RunnerMSMedCap(config, task, tiny.TinyModel(), {"coco": data}, "job")


def losses(*values: float) -> list[dict[str, Any]]:
    return [{"agg_metrics": 0.0, "sam/loss_itc": value} for value in values]


def test_a_loss_is_better_when_it_is_smaller(tiny: ModuleType, tmp_path: Path) -> None:
    task = Scripted(losses(3.0, 1.0, 2.0))
    runner = make(tiny, tmp_path, task, max_epoch=3, best_metric="sam/loss_itc")
    runner.train()
    assert runner.state.best_epoch == 2


def test_another_metric_is_better_when_it_is_larger() -> None:
    assert Selection(metric="CIDEr").score({"CIDEr": 0.5, "agg_metrics": 9.0}) == 0.5
    assert Selection(metric="CIDEr").score({"CIDEr": None}) is None
    assert Selection().score({"agg_metrics": -1}) == -1


def test_a_misspelt_metric() -> None:
    with pytest.raises(ConfigError, match=r"run\.best_metric 'CIDer' is unknown.*'CIDEr'"):
        Selection(metric="CIDer").score({"CIDEr": 0.5})


class Named(Scripted):
    """Knows what its validations may give."""

    def metric_names(self, _model: Any, domains: Any) -> list[str]:
        return ["CIDEr", *(f"{name}/{domain}" for name, domain in domains.items())]


def test_a_misspelt_metric_is_told_before_anything_is_made(
    tiny: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"'coco/generl' is unknown; did you mean 'coco/general'"):
        make(tiny, tmp_path / "runs", Named([]), best_metric="coco/generl")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("key", "value"), [("best_metric", "CIDEr"), ("early_stopping", 2)])
def test_nothing_chooses_without_validation(
    tiny: ModuleType, tmp_path: Path, key: str, value: Any
) -> None:
    with pytest.raises(
        ConfigError, match=rf"run\.{key} is {value}, but run\.valid_splits is empty"
    ):
        make(tiny, tmp_path, Named([]), valid_splits=[], **{key: value})


def test_a_metric_that_failed_once_costs_no_training(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = Named([{"agg_metrics": 1.0}, {"CIDEr": 0.5}, {"CIDEr": 0.25}])
    runner = make(tiny, tmp_path, task, max_epoch=3, best_metric="CIDEr")
    runner.train()
    assert runner.state.best_epoch == 2
    assert "gave no CIDEr, so its epoch cannot be best" in caplog.text


def test_ends_early(tiny: ModuleType, tmp_path: Path) -> None:
    scores = [{"agg_metrics": value} for value in (1.0, 2.0, 1.5, 1.9, 5.0)]
    task = Scripted(scores)
    runner = make(tiny, tmp_path, task, early_stopping=2)
    runner.train()
    assert task.calls == 4
    assert runner.state.best_epoch == 2
    status = read_status(Path(runner.output_dir))
    assert status is not None
    assert status.finished


def test_ends_at_the_same_epoch_when_taken_up(tiny: ModuleType, tmp_path: Path) -> None:
    values = [{"agg_metrics": value} for value in (1.0, 2.0, 1.5, 1.9, 5.0)]
    runner = make(tiny, tmp_path, Scripted(values, stop_at=4), early_stopping=2)
    with pytest.raises(RuntimeError, match="power cut"):
        runner.train()
    assert runner._open.lock is not None
    runner._open.lock.release()
    again = Scripted(values[3:])
    taken_up = make(tiny, tmp_path, again, early_stopping=2, resume="auto")
    assert taken_up.output_dir == runner.output_dir
    taken_up.train()
    assert again.calls == 1
    assert taken_up.state.best_epoch == 2


def test_a_training_that_counts_steps(tiny: ModuleType, tmp_path: Path) -> None:
    scores: list[dict[str, Any]] = [{"agg_metrics": value} for value in (1.0, 3.0, 2.0, 0.0)]
    steps = {"max_epoch": None, "max_iters": 10, "iters_per_inner_epoch": 3}
    warm_up = {"lr_sched": "linear_warmup_cosine_lr", "warmup_steps": 5, "warmup_lr": 0.0}
    task = Scripted(scores)
    runner = make(tiny, tmp_path, task, init_lr=0.1, log_freq=1, **steps, **warm_up)
    runner.train()
    assert task.calls == 4
    assert runner.state.global_step == 10
    assert runner.state.best_epoch == 2
    root = Path(runner.output_dir)
    with (root / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [
        ("1", "3"),
        ("2", "6"),
        ("3", "9"),
        ("4", "10"),
    ]
    with (root / "metrics.csv").open(newline="") as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates[:6] == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08, 0.1])
    assert 0 < rates[9] < rates[8]
    facts = read_checkpoint(root / "checkpoint_last.safetensors")[1]
    assert facts["global_step"] == "10"
    assert "10 steps in 4 epochs of 3" in (root / "log.txt").read_text()


def test_steps_without_inner_epochs_are_validated_after_each_pass(
    tiny: ModuleType, tmp_path: Path
) -> None:
    task = Scripted([{"agg_metrics": 1.0}] * 3)  # a pass has two batches
    runner = make(tiny, tmp_path, task, max_epoch=None, max_iters=5)
    runner.train()
    assert (task.calls, runner.state.global_step) == (3, 5)
