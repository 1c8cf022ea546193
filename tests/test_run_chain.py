"""A file of several stages that was interrupted between two of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lavis_msmedcap.run_chain import Chain
from lavis_msmedcap.run_config import RunConfig
from lavis_msmedcap.runners.run_status import RunStatus


def configs(folder: Path, **run: object) -> list[RunConfig]:
    return [
        RunConfig(
            OmegaConf.create({"run": {"output_dir": str(folder / stage), **run}}),
            folder / "row.yaml",
            stage=stage,
        )
        for stage in ("pretrain", "caption", "evaluate")
    ]


def done(chain: Chain, stages: list[RunConfig]) -> list[bool]:
    return [chain.is_done(config) for config in stages]


def test_stages_that_are_done_are_left_out(tmp_path: Path) -> None:
    stages = configs(tmp_path, resume="auto", max_epoch=2)
    chain = Chain(stages)
    assert done(chain, stages) == [False, False, False]
    chain.finish(stages[0])
    again = Chain(configs(tmp_path, resume="auto", max_epoch=2, num_workers=3))
    assert done(again, stages) == [True, False, False]


def test_a_whole_chain_is_forgotten(tmp_path: Path) -> None:
    stages = configs(tmp_path, resume="auto")
    chain = Chain(stages)
    for config in stages:
        chain.finish(config)
    assert done(Chain(stages), stages) == [False, False, False]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("run", [{"resume": "auto", "max_epoch": 3}, {"resume": "off"}, {}])
def test_other_settings_begin_anew(tmp_path: Path, run: dict[str, object]) -> None:
    first = configs(tmp_path, resume="auto", max_epoch=2)
    Chain(first).finish(first[0])
    other = configs(tmp_path, **run)
    assert done(Chain(other), other) == [False, False, False]


def test_a_change_in_a_later_stage_leaves_earlier_ones_done(tmp_path: Path) -> None:
    stages = configs(tmp_path, resume="auto")
    Chain(stages).finish(stages[0])
    changed = configs(tmp_path, resume="auto")
    changed[1].run_cfg.init_lr = 0.1
    assert done(Chain(changed), changed) == [True, False, False]
    changed[0].run_cfg.init_lr = 0.1
    assert done(Chain(changed), changed) == [False, False, False]


def test_a_stage_that_ended_before_it_was_noted_is_done(tmp_path: Path) -> None:
    stages, root = configs(tmp_path, resume="auto"), tmp_path / "pretrain" / "run"
    root.mkdir(parents=True)
    Chain(stages).begin(stages[0], root)
    assert done(Chain(stages), stages) == [False, False, False]
    RunStatus(finished=True).write(root)
    (root / "checkpoint_last.safetensors").touch()
    assert done(Chain(stages), stages) == [True, False, False]


def test_a_stage_whose_result_is_gone_is_not_done(tmp_path: Path) -> None:
    stages, root = configs(tmp_path, resume="auto"), tmp_path / "pretrain" / "run"
    root.mkdir(parents=True)
    RunStatus(finished=True).write(root)
    (root / "checkpoint_last.safetensors").touch()
    chain = Chain(stages)
    chain.begin(stages[0], root)
    chain.finish(stages[0])
    assert done(Chain(stages), stages) == [True, False, False]
    elsewhere = configs(tmp_path, resume="auto")
    elsewhere[0].run_cfg.output_dir = str(tmp_path / "elsewhere")
    assert done(Chain(elsewhere), elsewhere) == [False, False, False]
    shutil.rmtree(root)
    assert done(Chain(stages), stages) == [False, False, False]


def test_two_files_in_one_folder_do_not_forget_each_other(tmp_path: Path) -> None:
    stages, others = (configs(tmp_path, resume="auto", max_epoch=n) for n in (1, 2))
    Chain(others).finish(others[0])
    chain = Chain(stages)
    for config in stages:
        chain.finish(config)
    assert done(Chain(others), others) == [True, False, False]


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    stages = configs(tmp_path, resume="auto")
    Chain(stages).finish(stages[0])
    (path,) = (path for path in tmp_path.rglob(".stages-*"))
    path.write_text("[")
    assert done(Chain(stages), stages) == [False, False, False]
