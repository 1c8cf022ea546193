"""Every YAML that ships, ours and LAVIS' own, passes the check at every scale."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import lavis
import pytest
import yaml
from config_problems import other_problems
from lavis.common.config import Config
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.run_config import register_plugin, resolve_run_config, resolve_stages
from lavis_msmedcap.run_sources import packaged_configs, read_yaml

LAVIS_ROOT = Path(lavis.__file__).parent.parent
LAVIS_CONFIGS = sorted(
    path.relative_to(LAVIS_ROOT).as_posix()
    for path in (LAVIS_ROOT / "lavis" / "projects" / "blip2" / "train").glob("*.yaml")
)


def scales_of(name: str) -> list[str]:
    return list(read_yaml(packaged_configs()[name]).get("scales") or ["demo", "paper"])


SCALED = [(name, scale) for name in sorted(packaged_configs()) for scale in scales_of(name)]


@pytest.mark.parametrize(("name", "scale"), SCALED)
def test_shipped_run_configuration(name: str, scale: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for config, problems in resolve_stages(name, [f"scale={scale}"]):
        assert other_problems(problems) == []
        assert config.scale == scale
        assert config.model_cfg.model_type == scale
        assert config.run_cfg.runner == "runner_msmedcap"
        if scale == "demo":
            # demo data are made on first use and demo weights ship: only an earlier run may miss
            earlier = ("model.stage1", "model.finetuned")
            assert [p for p in problems if not p.startswith(earlier)] == []


def test_the_three_runs_are_shipped() -> None:
    names = {Path(name).name for name in packaged_configs()}
    assert names >= {"pretrain_mixed.yaml", "caption.yaml", "evaluate.yaml"}


def test_each_stage_finds_what_the_one_before_wrote() -> None:
    for scale in ("demo", "paper", "authors"):
        configs = {
            Path(name).stem: resolve_run_config(name, [f"scale={scale}"])[0]
            for name in packaged_configs()
            if "/table1/" not in name  # see test_run_stages.py
        }
        stage1 = configs["pretrain_mixed"].run_cfg.output_dir
        stage2 = configs["caption"].run_cfg.output_dir
        assert configs["caption"].model_cfg.stage1 == stage1
        assert configs["evaluate"].model_cfg.finetuned == stage2
        assert len({stage1, stage2, configs["evaluate"].run_cfg.output_dir}) == 3


def test_paper_runs_have_the_numbers_of_the_paper() -> None:
    for name, warmup in (("pretrain_mixed", 5000), ("caption", 2000)):
        config, _ = resolve_run_config(f"projects/msmedcap/{name}.yaml", ["scale=paper"])
        run = config.run_cfg
        assert run.max_epoch == 3
        assert (run.init_lr, run.min_lr, run.weight_decay) == (1e-4, 1e-5, 0.05)
        assert run.warmup_steps == warmup
        branches = config.model_cfg.branches
        assert list(branches.clip.train_on) == ["general"]
        assert list(branches.sam.train_on) == ["general", "medical"]
    assert "coco2014_caption" not in config.datasets_cfg


@pytest.mark.parametrize("name", ["pretrain_mixed", "caption"])
def test_authors_read_captions_as_blip_does(name: str) -> None:
    config, _ = resolve_run_config(f"projects/msmedcap/{name}.yaml", ["scale=authors"])
    theirs = registry.get_processor_class("blip_caption").from_config(None)
    raw = "Figure 2. (A) CT, axial: a 2.5 cm *Mass* (arrow) [12]; " + "word " * 60
    assert config.datasets_cfg
    for settings in config.datasets_cfg.values():
        for chosen in settings.text_processor.values():
            ours = registry.get_processor_class(chosen.name).from_config(chosen)
            assert ours(raw) == theirs(raw)
    assert config.model_cfg.max_txt_len == 320


@pytest.mark.parametrize("name", sorted(packaged_configs()))
def test_run_configuration_is_headed_by_its_command(name: str) -> None:
    head = packaged_configs()[name].read_text().split("\nscale:")[0]
    assert re.search(rf"#   python -m lavis\.(train|evaluate) --cfg-path {re.escape(name)}\n", head)


def test_knobs_named_in_the_comments_exist() -> None:
    """An option that a comment recommends must pass the check."""
    found = 0
    for name, path in packaged_configs().items():
        for line in path.read_text().split("\nscale:")[0].splitlines():
            words = re.findall(r"((?:run|model|datasets)\.[\w.]+=\S+)", line)
            for word in words:
                found += 1
                value = word.replace('"a', "a")  # a quoted value is cut at its first space
                for _, problems in resolve_stages(name, [value]):
                    assert other_problems(problems) == [], word
    assert found >= 10


@pytest.mark.parametrize(
    "path", sorted(package_path("configs/models").glob("*.yaml")), ids=lambda p: p.name
)
def test_packaged_model_default(path: Path) -> None:
    register_plugin()
    model = read_yaml(path)["model"]
    cls = registry.get_model_class(model["arch"])
    assert path.samefile(cls.default_config_path(model["model_type"]))
    run = Path("projects/msmedcap") / (
        "pretrain_mixed.yaml" if model["arch"] == "blip2_dual_qformer" else "caption.yaml"
    )
    # a run that uses the default as it is, so that every key in it is checked
    _, problems = resolve_run_config(str(run), [f"scale={model['model_type']}"])
    assert other_problems(problems) == []


@pytest.mark.parametrize(
    "path", sorted(package_path("configs/datasets").rglob("*.yaml")), ids=lambda p: str(p)[-30:]
)
def test_packaged_dataset_default(path: Path) -> None:
    register_plugin()
    (name, settings), *others = yaml.safe_load(path.read_text())["datasets"].items()
    assert not others
    assert name == path.parent.name
    cls = registry.get_builder_class(name)
    assert path.samefile(cls.default_config_path(settings["type"]))


@pytest.mark.parametrize("name", LAVIS_CONFIGS)
def test_lavis_own_configuration_resolves_as_in_lavis(name: str) -> None:
    config, problems = resolve_run_config(name)
    assert other_problems(problems) == []
    args = argparse.Namespace(cfg_path=str(LAVIS_ROOT / name), options=None)
    theirs = OmegaConf.to_container(Config(args).get_config(), resolve=True)
    theirs.pop("preprocess", None)  # which no run reads
    assert config.to_dict() == theirs


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_both_stages_describe_the_same_branches(scale: str) -> None:
    """Stage 2 loads stage 1 by key and shape, so the two packaged files must not drift apart."""
    stage1, stage2 = (
        OmegaConf.load(package_path(f"configs/models/{arch}_{scale}.yaml"))
        for arch in ("blip2_dual_qformer", "msmedcap")
    )
    assert stage1.model.branches == stage2.model.branches
    assert stage1.model.qformer == stage2.model.qformer
    assert stage1.preprocess == stage2.preprocess
