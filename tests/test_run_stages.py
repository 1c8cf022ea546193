"""Files of several stages, bases of files, and the rows of Table 1 that are made of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_problems import other_problems

from lavis_msmedcap import evaluate
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.run_config import RunConfig, load_stages, resolve_run_config, resolve_stages
from lavis_msmedcap.run_sources import packaged_configs, read_config

TABLE1 = {Path(name).stem: name for name in packaged_configs() if "/table1/" in name}
GENERAL, BOTH = ["general"], ["general", "medical"]
RECIPES = {  # Table 1 of the paper; None: no such branch
    "blip2_g_zeroshot": (GENERAL, None),
    "blip2_g_finetuned": (GENERAL, None),
    "blip2_gm": (BOTH, None),
    "sam_blip2_gm": (None, BOTH),
    "msmedcap_g_g": (GENERAL, GENERAL),
    "msmedcap_gm_g": (BOTH, GENERAL),
    "msmedcap_gm_gm": (BOTH, BOTH),
    "msmedcap_g_gm": (GENERAL, BOTH),
}


def stages(name: str, *options: str) -> list[RunConfig]:
    resolved = resolve_stages(name, list(options))
    assert [p for _, problems in resolved for p in other_problems(problems)] == []
    return [config for config, _ in resolved]


# --- Table 1 ------------------------------------------------------------------------------------


def test_every_row_is_there() -> None:
    assert set(TABLE1) == set(RECIPES)


@pytest.mark.parametrize("scale", ["demo", "paper"])
@pytest.mark.parametrize("row", sorted(TABLE1))
def test_row(row: str, scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pretrain, caption, test = stages(TABLE1[row], f"scale={scale}")
    assert [config.stage for config in (pretrain, caption, test)] == [
        "pretrain",
        "caption",
        "evaluate",
    ]
    for config in (pretrain, caption, test):
        branches = config.model_cfg.branches
        found = tuple(
            list(branches[name].train_on) if branches[name] else None for name in ("clip", "sam")
        )
        assert found == RECIPES[row]
        assert config.scale == scale
        assert row in config.run_cfg.output_dir
    # every row takes the epoch by the same rule, whatever branches it has
    assert list(pretrain.run_cfg.valid_splits) == []
    assert caption.model_cfg.stage1 == pretrain.run_cfg.output_dir
    assert test.model_cfg.finetuned == caption.run_cfg.output_dir
    assert set(test.datasets_cfg) == {"roco", "medicat"}
    expected = {"coco2014_caption"} if row == "blip2_g_zeroshot" else {"roco", "medicat"}
    assert set(caption.datasets_cfg) == expected


@pytest.mark.parametrize("row", sorted(TABLE1))
def test_a_row_has_no_scale_of_the_authors(row: str) -> None:
    """Their code has one network, and rows would have written over each other's folders."""
    with pytest.raises(ConfigError, match=r"stages.pretrain: scale 'authors'.*demo, paper"):
        load_stages(TABLE1[row], ["scale=authors"])


def test_rows_share_everything_but_their_own_lines() -> None:
    for row, path in TABLE1.items():
        own = yaml.safe_load(packaged_configs()[path].read_text())
        keys = {"scale", "base", "name", "model"} | ({"stages"} if "zeroshot" in row else set())
        assert set(own) == keys
        assert (own["base"], own["name"]) == ("_row.yaml", row)
        assert set(own["model"]) == {"branches"}


def test_paper_scale_of_a_row_has_the_numbers_of_the_paper() -> None:
    pretrain, caption, test = stages(TABLE1["msmedcap_g_gm"], "scale=paper")
    assert (pretrain.run_cfg.max_epoch, caption.run_cfg.max_epoch) == (3, 3)
    sizes = {name: settings.max_samples for name, settings in test.datasets_cfg.items()}
    assert (sizes["roco"].train, sizes["roco"].test) == (60_000, 8_000)
    assert (sizes["medicat"].train, sizes["medicat"].test) == (100_000, 50_000)


# --- the mechanism ------------------------------------------------------------------------------


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return TABLE1["msmedcap_g_gm"]


def test_checkpoints_of_earlier_stages_are_no_problem_but_others_are(row: str) -> None:
    assert len(load_stages(row)) == 3
    with pytest.raises(ConfigError, match=r"stages.caption: model.stage1: no checkpoint at"):
        load_stages(row, ["stages.pretrain=null"])


def test_options_reach_all_stages_or_one(row: str) -> None:
    configs = stages(row, "run.seed=7", "stages.caption.run.max_epoch=9")
    assert [config.run_cfg.seed for config in configs] == [7, 7, 7]
    assert [config.run_cfg.get("max_epoch") for config in configs] == [1, 9, None]


def test_evaluating_takes_the_stages_that_evaluate(row: str) -> None:
    resolved = resolve_stages(row, [], evaluate.OVERRIDES)
    assert [config.stage for config, _ in resolved] == ["evaluate"]


def test_a_file_of_stages_is_not_one_configuration(row: str) -> None:
    with pytest.raises(ConfigError, match="pretrain, caption, evaluate"):
        resolve_run_config(row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["stages.captoin.run.seed=1"], "did you mean 'caption'"),
        (["stages=1"], "write stages.<name>.<key>=value"),
        (["stages=null"], "stages is null; write stages.<name>.<key>=value"),
        (["stages.caption=3"], "stages.caption=null to leave it out"),
        (
            [f"stages.{name}=null" for name in ("pretrain", "caption", "evaluate")],
            "keep at least one",
        ),
        (["stages.caption.run.num_beems=1"], "num_beams"),
    ],
)
def test_wrong_stages_are_told(row: str, options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_stages(row, options)


def test_stages_of_a_file_without_any_are_told() -> None:
    with pytest.raises(ConfigError, match="the file has no stages"):
        load_stages("projects/msmedcap/caption.yaml", ["stages.caption.run.seed=1"])


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def test_base_is_below_and_relative_to_its_file(tmp_path: Path) -> None:
    write(tmp_path / "a/top.yaml", {"base": "../b/mid.yaml", "run": {"seed": 1}})
    write(tmp_path / "b/mid.yaml", {"base": "low.yaml", "run": {"seed": 2, "lr_sched": "x"}})
    write(tmp_path / "b/low.yaml", {"run": {"seed": 3, "device": "cpu"}, "scale": "demo"})
    assert read_config(tmp_path / "a/top.yaml") == {
        "run": {"seed": 1, "lr_sched": "x", "device": "cpu"},
        "scale": "demo",
    }


def test_null_takes_a_dataset_of_the_base_out(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", {"datasets": {"roco": {"type": "demo"}, "medicat": {}}})
    top = write(
        tmp_path / "top.yaml", {"base": "low.yaml", "datasets": {"roco": None, "coco": None}}
    )
    # coco is not in the base: a line left empty by mistake stays to be told
    assert read_config(top)["datasets"] == {"medicat": {}, "coco": None}


def test_a_scale_of_the_base_does_not_bring_a_dataset_back(tmp_path: Path) -> None:
    own = {"roco": {"ratio": 2.0}, "medicat": {"ratio": 1.0}}
    low = {"datasets": {"roco": {}, "medicat": {}}, "scales": {"paper": {"datasets": own}}}
    write(tmp_path / "low.yaml", low)
    over = {"base": "low.yaml", "datasets": {"roco": None}}
    merged = read_config(write(tmp_path / "top.yaml", over))
    assert merged["scales"] == {"paper": {"datasets": {"medicat": {"ratio": 1.0}}}}
    over["scales"] = {"paper": {"datasets": {"roco": {"ratio": 3.0}}}}  # what it asks for itself
    merged = read_config(write(tmp_path / "top.yaml", over))
    assert merged["scales"]["paper"]["datasets"]["roco"]["ratio"] == 3.0


def test_null_takes_a_scale_of_the_base_out(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", {"scales": {"demo": {"run": {"seed": 1}}, "paper": {}}})
    top = write(tmp_path / "top.yaml", {"base": "low.yaml", "scales": {"paper": None}})
    assert read_config(top)["scales"] == {"demo": {"run": {"seed": 1}}}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("gone.yaml", "gone.yaml does not exist; the path is relative to"),
        ("top.yaml", "leads back to a file that it is the base of"),
        (3, "base is 3; expected the path of a YAML file"),
    ],
)
def test_wrong_base_is_told(tmp_path: Path, base: Any, message: str) -> None:
    top = write(tmp_path / "top.yaml", {"base": base})
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_config(top)
