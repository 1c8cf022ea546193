"""A run under other settings: what may change, what it forgets then, and what a refusal leaves."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.checkpoints import read_notes
from lavis_msmedcap.runners.run_status import RunStatus, read_status
from lavis_msmedcap.runners.training_state import StateError
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


class Measured(MixedSemanticPretrainTask):
    """Two metrics that disagree: recall falls from 50, the loss falls from 2."""

    def __init__(self, ends_at: int = 0) -> None:
        super().__init__()
        self.left = ends_at

    def train_step(self, model: Any, samples: Any) -> Any:
        self.left -= 1
        if not self.left:
            raise RuntimeError("the end")
        return super().train_step(model, samples)

    def after_evaluation(self, *_: Any, epoch: Any, **__: Any) -> Any:
        number = epoch if isinstance(epoch, int) else 1
        return {"agg_metrics": 0.0, "recall": 50.0 - number, "loss": 2.0 - 0.1 * number}


@pytest.fixture
def root(tiny: ModuleType, tmp_path: Path) -> Path:
    return cut(tiny, tmp_path)


def cut(tiny: ModuleType, folder: Path, step: int = 25, **run: Any) -> Path:
    runner = tiny.make_runner(folder, Measured(step), **{"best_metric": "recall", **run})
    with pytest.raises(RuntimeError, match="the end"):
        runner.train()
    runner._open.lock.release()
    return Path(runner.output_dir)


def resumed(tiny: ModuleType, root: Path, task: Measured | None = None, **run: Any) -> Any:
    settings = {"best_metric": "recall", "resume": str(root), "resume_changed": True, **run}
    return tiny.make_runner(root.parent, task or Measured(), **settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("accum_grad_iters", 2),
        ("seed", 7),
        ("samples_per_epoch", 20),
        ("train_dataset_ratios", {"coco": 0.5}),
    ],
)
def test_steps_and_batches_stay_as_they_are(
    tiny: ModuleType, root: Path, key: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=rf"cannot go on with other steps.*\(run\.{key}: "):
        resumed(tiny, root, **{key: value})


def test_another_batch_is_refused_with_its_cure(tiny: ModuleType, root: Path) -> None:
    with pytest.raises(ConfigError, match=r"4 -> 2, run\.batch_size_train=4 on 1 process"):
        resumed(tiny, root, batch_size_train=2)


def test_what_does_not_fit_leaves_the_run_as_it_was(tiny: ModuleType, root: Path) -> None:
    kept = {name: (root / name).read_bytes() for name in ("status.json", "config.yaml")}
    runner = resumed(tiny, root, ema_decay=0.9)  # the state holds no average
    with pytest.raises(StateError, match="is of another model"):
        runner.train()
    runner._open.lock.release()
    for name, content in kept.items():
        assert (root / name).read_bytes() == content
    again = tiny.make_runner(root.parent, Measured(), best_metric="recall", resume="auto")
    assert Path(again.output_dir) == root


def test_every_configuration_of_the_run_is_kept(tiny: ModuleType, root: Path) -> None:
    for lr in (0.01, 0.02):
        runner = resumed(tiny, root, Measured(1), init_lr=lr)
        with pytest.raises(RuntimeError, match="the end"):
            runner.train()
        runner._open.lock.release()
    names = ["config-until-step-000000024", "config-until-step-000000024-2", "config"]
    rates = [OmegaConf.load(root / f"{name}.yaml").run.init_lr for name in names]
    assert rates == [0.05, 0.01, 0.02]


def test_scores_of_another_metric_choose_nothing(
    tiny: ModuleType, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (root / "checkpoint_best.safetensors").read_bytes()
    runner = resumed(tiny, root, best_metric="loss", early_stopping=2, max_epoch=6)
    runner.train()
    status = read_status(root)
    assert status is not None
    assert [epoch for epoch, _ in status.validations] == [1, 2, 3, 4, 5, 6]
    assert [score for _, score in status.validations[:2]] == [None, None]
    assert read_notes(root / "checkpoint_best.safetensors")["epoch"] == "6"
    kept = root / "checkpoint_best-until-step-000000024.safetensors"
    assert kept.read_bytes() == before
    assert "the best epoch is chosen among those that follow" in caplog.text


def test_scores_count_on_under_another_learning_rate(tiny: ModuleType, root: Path) -> None:
    resumed(tiny, root, init_lr=0.01).train()
    status = read_status(root)
    assert status is not None
    assert status.validations == [(1, 49.0), (2, 48.0), (3, 47.0)]
    assert read_notes(root / "checkpoint_best.safetensors")["epoch"] == "1"


def test_a_run_whose_status_is_damaged_can_be_saved(tiny: ModuleType, root: Path) -> None:
    (root / "status.json").write_text("{")
    resumed(tiny, root).train()
    status = read_status(root)
    assert status is not None
    assert status.finished
    assert [epoch for epoch, _ in status.validations] == [3]  # it was cut off in this one


@pytest.mark.parametrize("lost", ["status.json", "config.yaml"])
def test_steps_stay_as_they_are_whatever_the_files_say(
    tiny: ModuleType, root: Path, lost: str
) -> None:
    (root / lost).write_text("{")
    with pytest.raises((ConfigError, StateError), match=r"run\.seed|what a step is was"):
        resumed(tiny, root, seed=7).train()


def test_another_test_split_forgets_nothing(tiny: ModuleType, root: Path) -> None:
    resumed(tiny, root, test_splits=["val"]).train()
    assert not list(root.glob("*-until-*.safetensors"))
    assert read_notes(root / "checkpoint_best.safetensors")["epoch"] == "1"


def test_a_change_that_was_broken_off_leaves_the_best_weights(
    tiny: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (root / "checkpoint_best.safetensors").read_bytes()

    def power_cut(*_: Any) -> None:
        raise RuntimeError("power cut")

    runner = resumed(tiny, root, best_metric="loss")
    with monkeypatch.context() as patch:
        patch.setattr(RunStatus, "write", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            runner.train()
    runner._open.lock.release()
    assert (root / "checkpoint_best.safetensors").read_bytes() == before
    again = tiny.make_runner(root.parent, Measured(), best_metric="recall", resume="auto")
    assert Path(again.output_dir) == root
    again.train()
    assert read_notes(root / "checkpoint_best.safetensors")["epoch"] == "1"
