"""A file of several stages that was interrupted between two of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lavis_msmedcap.run_chain import Chain
from lavis_msmedcap.run_config import RunConfig


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


def test_a_damaged_file_is_as_none(tmp_path: Path) -> None:
    stages = configs(tmp_path, resume="auto")
    Chain(stages).finish(stages[0])
    (path,) = (path for path in tmp_path.rglob(".stages-*"))
    path.write_text("[")
    assert done(Chain(stages), stages) == [False, False, False]
