"""What an error told its reader to change made the run one that could not be taken up."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import load_module
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners.open_run import open_run_directory
from lavis_msmedcap.runners.run_status import JointBatches, fingerprint, read_status
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    return load_module(Path(__file__).parents[1] / "runners" / "tiny.py")


class Ends(MixedSemanticPretrainTask):
    left = 15

    def train_step(self, model: Any, samples: Any) -> Any:
        self.left -= 1
        if not self.left:
            raise RuntimeError("the end")
        return super().train_step(model, samples)


@pytest.fixture
def root(tiny: ModuleType, tmp_path: Path) -> Path:
    runner = tiny.make_runner(tmp_path, Ends())
    with pytest.raises(RuntimeError, match="the end"):
        runner.train()
    runner._open.lock.release()
    return Path(runner.output_dir)


@pytest.mark.parametrize("key", ["max_bad", "on_bad"])
def test_ceilings_of_skipped_images_decide_on_no_weight(key: str) -> None:
    with_it: dict[str, Any] = {"run": {}, "datasets": {"roco": {"type": "demo", key: 0.1}}}
    without: dict[str, Any] = {"run": {}, "datasets": {"roco": {"type": "demo"}}}
    assert fingerprint(with_it) == fingerprint(without)


def test_a_run_goes_on_under_another_learning_rate_if_that_is_asked_for(
    tiny: ModuleType, tmp_path: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = MixedSemanticPretrainTask()
    with pytest.raises(ConfigError, match=r"run\.init_lr: 0\.05 -> 0\.01.*run\.resume_changed"):
        tiny.make_runner(tmp_path, task, resume=str(root), init_lr=0.01)
    runner = tiny.make_runner(
        tmp_path, task, resume=str(root), init_lr=0.01, resume_changed=True, max_epoch=4
    )
    runner.train()
    assert "goes on with other settings: run.init_lr: 0.05 -> 0.01" in caplog.text
    assert "taking up the run: step 14 " in (root / "log.txt").read_text()
    assert OmegaConf.load(root / "config.yaml").run.init_lr == 0.01
    assert OmegaConf.load(root / "config-until-step-000000014.yaml").run.init_lr == 0.05
    assert read_status(root).finished  # type: ignore[union-attr]


def test_the_new_configuration_is_then_that_of_the_run(
    tiny: ModuleType, tmp_path: Path, root: Path
) -> None:
    changes = {"init_lr": 0.01, "resume_changed": True}
    runner = tiny.make_runner(tmp_path, Ends(), resume=str(root), **changes)
    with pytest.raises(RuntimeError, match="the end"):
        runner.train()
    runner._open.lock.release()
    again = tiny.make_runner(tmp_path, Ends(), resume="auto", init_lr=0.01)
    assert Path(again.output_dir) == root


def test_auto_says_why_it_begins_anew(
    tiny: ModuleType, tmp_path: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = tiny.make_runner(tmp_path, Ends(), resume="auto", init_lr=0.01)
    assert Path(runner.output_dir) != root
    assert f"the unfinished run at {root} had other settings (run.init_lr: 0.05 -> 0.01" in (
        caplog.text
    )
    assert f"run.resume={root} run.resume_changed=true" in caplog.text


def test_auto_says_which_batch_would_be_the_same(
    tmp_path: Path, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = OmegaConf.to_container(OmegaConf.load(root / "config.yaml"))
    opened = open_run_directory(str(tmp_path), "auto", config, JointBatches(8, 4))  # type: ignore[arg-type]
    assert not opened.resumed
    told = "images of all processes per batch: 4 -> 8, run.batch_size_train=4 on 1 process(es)"
    assert told in caplog.text


def test_the_switch_alone_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"resume_changed is true, but run\.resume is auto"):
        RunSettings.from_run_cfg({"resume": "auto", "resume_changed": True})
