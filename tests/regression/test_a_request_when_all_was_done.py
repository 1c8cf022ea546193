"""A request to stop while the last files were closed, or between two stages."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from by_path import load_module
from omegaconf import OmegaConf

from lavis_msmedcap import launch, train
from lavis_msmedcap.run_config import RunConfig
from lavis_msmedcap.runners.run_status import read_status
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


@pytest.fixture(scope="module")
def tiny() -> ModuleType:
    return load_module(Path(__file__).parents[1] / "runners" / "tiny.py")


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "setup_logger", lambda: None)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def asked_while_closing(runner: Any) -> Any:
    """Makes the run hear a request after it has noted that it is finished."""
    finish = runner._finish

    def finish_and_ask(keeper: Any) -> None:
        finish(keeper)
        ask()

    runner._finish = finish_and_ask
    return runner


def stages(folder: Path) -> list[RunConfig]:
    return [
        RunConfig(
            OmegaConf.create(
                {"run": {"output_dir": str(folder / name), "resume": "auto", "device": "cpu"}}
            ),
            folder / "row.yaml",
            stage=name,
        )
        for name in ("pretrain", "caption")
    ]


def prepare(
    tiny: ModuleType, started: list[str], change: Callable[[Any], Any] = lambda runner: runner
) -> Callable[[RunConfig], Any]:
    """Returns what builds the runner of a stage, a tiny one."""

    def build(config: RunConfig) -> Any:
        started.append(config.stage)
        options = {"resume": "auto", "max_epoch": 1}
        return change(
            tiny.make_runner(config.run_cfg.output_dir, MixedSemanticPretrainTask(), **options)
        )

    return build


def test_a_finished_run_ends_well(tiny: ModuleType, tmp_path: Path) -> None:
    runner = asked_while_closing(
        tiny.make_runner(tmp_path, MixedSemanticPretrainTask(), max_epoch=1)
    )
    assert train.guarded(runner.train) == 0
    status = read_status(Path(runner.output_dir))
    assert status is not None
    assert status.finished


def test_the_next_stage_does_not_begin(
    tiny: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    started: list[str] = []
    monkeypatch.setattr(launch, "_prepare", prepare(tiny, started, asked_while_closing))
    assert train.guarded(lambda: launch.launch(*stages(tmp_path))) == 75
    assert started == ["pretrain"]
    told = capsys.readouterr().err
    assert "asked to stop\ndone: pretrain; the same command goes on with the next stage" in told

    monkeypatch.setattr(launch, "_prepare", prepare(tiny, started))
    assert train.guarded(lambda: launch.launch(*stages(tmp_path))) == 0
    assert started == ["pretrain", "caption"]


def test_while_the_next_stage_is_built(
    tiny: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    build = prepare(tiny, [])

    def asked_in_the_second(config: RunConfig) -> Any:
        if config.stage == "caption":
            ask()
        return build(config)

    monkeypatch.setattr(launch, "_prepare", asked_in_the_second)
    assert train.guarded(lambda: launch.launch(*stages(tmp_path))) == 75
    assert "done: pretrain; the same command goes on" in capsys.readouterr().err


def test_while_the_first_one_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "_prepare", lambda _config: ask())
    assert train.guarded(lambda: launch.launch(*stages(tmp_path))) == 75
    assert "It was about to begin; start it again with the same command." in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["finish", "leaving the group"])
def test_after_the_last_stage_it_comes_too_late(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The same command would train everything anew."""
    change = asked_while_closing if moment == "finish" else lambda runner: runner
    monkeypatch.setattr(launch, "_prepare", prepare(tiny, [], change))
    if moment == "leaving the group":
        finish = launch.Chain.finish

        def finish_and_ask(chain: Any, config: RunConfig) -> None:
            finish(chain, config)
            if config.stage == "caption":
                ask()

        monkeypatch.setattr(launch.Chain, "finish", finish_and_ask)
        assert train.guarded(lambda: launch.launch(*stages(tmp_path))) == 0
    else:
        [_, last] = stages(tmp_path)
        assert train.guarded(lambda: launch.launch(last)) == 0
