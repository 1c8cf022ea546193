"""Which datasets a stage-1 run keeps, given what its branches train on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from lavis_msmedcap import cli, launch
from lavis_msmedcap.run_config import RunConfig, resolve_run_config
from lavis_msmedcap.run_sources import merge, packaged_configs, read_yaml

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"
ALL = ["coco2014_caption", "roco", "medicat"]
GENERAL, MEDICAL = ALL[:1], ALL[1:]
CLIP_FROM_FILE = "model.branches.clip.init=package:assets/demo/msmedcap.safetensors"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped stage-1 configuration, independent of the weights that ship with it.

    COCO is for training only, as at the paper's scale.
    """
    folder = tmp_path_factory.mktemp("sound")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    encoders = {name: {"encoder": {"weights": None}} for name in ("clip", "sam")}
    model = {"qformer": {"tokenizer": str(folder)}, "branches": encoders}
    datasets = {"coco2014_caption": {"build_info": {"annotations": {"val": None}}}}
    own = {"model": model, "datasets": datasets}
    config = merge(read_yaml(packaged_configs()[PRETRAIN]), own)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def resolve(path: Path, *options: str) -> RunConfig:
    config, problems = resolve_run_config(str(path), options)
    assert problems == []
    return config


@pytest.mark.parametrize(
    ("options", "datasets", "valid_splits"),
    [
        ([], ALL, ["val"]),
        (["model.branches.clip=null"], ALL, ["val"]),
        # nothing is left to validate on
        (["model.branches.sam=null"], GENERAL, []),
        (["model.branches.sam.train_on=[general]"], GENERAL, []),
        (["model.branches.clip=null", "model.branches.sam.train_on=[medical]"], MEDICAL, ["val"]),
        (["model.branches.clip.train_on=[]", CLIP_FROM_FILE], ALL, ["val"]),
        (
            ["model.branches.clip.train_on=[general,medical]", "model.branches.sam=null"],
            ALL,
            ["val"],
        ),
    ],
    ids=lambda value: " ".join(value) or "default",
)
def test_every_recipe_runs(
    sound: Path, options: list[str], datasets: list[str], valid_splits: list[str]
) -> None:
    config = resolve(sound, *options)
    assert list(config.datasets_cfg) == datasets
    assert list(config.run_cfg.valid_splits) == valid_splits
    assert len(config.notes) == len(ALL) - len(datasets) + (not valid_splits)


def test_what_is_left_out_is_said(sound: Path) -> None:
    assert resolve(sound, "model.branches.sam=null").notes == (
        "datasets.roco is left out: it is of domain medical, and the branches train on general "
        "only",
        "datasets.medicat is left out: it is of domain medical, and the branches train on general "
        "only",
        "run.valid_splits: val is left out, because no other dataset has it",
    )


def test_the_notes_reach_the_log_and_the_printed_configuration(
    sound: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Runner:
        def train(self) -> None:
            pass

    monkeypatch.setattr(launch, "build_runner", lambda _: Runner())
    options = ["model.branches.sam=null", "run.device=cpu"]
    with caplog.at_level(logging.INFO):
        launch.launch(resolve(sound, *options))
    assert "datasets.roco is left out" in caplog.text
    assert cli.main(["config", str(sound), "--options", *options]) == 0
    assert "\n# datasets.roco is left out" in capsys.readouterr().out


def test_ratios_of_what_is_left_out_go_too(sound: Path) -> None:
    ratios = "run.train_dataset_ratios={roco: 2, coco2014_caption: 0.5}"
    config = resolve(sound, "model.branches.sam=null", ratios)
    assert dict(config.run_cfg.train_dataset_ratios) == {"coco2014_caption": 0.5}


def test_a_validation_split_that_another_dataset_has_stays(sound: Path) -> None:
    key = "datasets.coco2014_caption.build_info.annotations.val.storage"
    config = resolve(
        sound,
        "model.branches.sam=null",
        f"{key}=phantom:coco/annotations/captions_val2014.json",
    )
    assert list(config.run_cfg.valid_splits) == ["val"]


def problems(path: Path, *options: str) -> str:
    return "\n".join(resolve_run_config(str(path), options)[1])


def test_no_dataset_of_use_is_an_error(sound: Path) -> None:
    text = problems(sound, "model.branches.sam=null", "datasets.coco2014_caption=null")
    assert "model.branches.clip.train_on is [general], but no dataset" in text


def test_an_evaluation_without_data_is_an_error(sound: Path) -> None:
    text = problems(sound, "model.branches.sam=null", "run.evaluate=true", "run.test_splits=[val]")
    assert "run.test_splits: no dataset has a split 'val'" in text


def test_captioning_uses_every_dataset_whatever_the_recipe_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options: list[Any] = ["model.branches.sam=null"]
    config, _ = resolve_run_config("projects/msmedcap/caption.yaml", options)
    assert list(config.datasets_cfg) == MEDICAL
    assert config.notes == ()


def test_what_chooses_among_validations_goes_with_them(sound: Path) -> None:
    chosen = ["run.best_metric=loss", "run.early_stopping=2"]
    assert resolve(sound, *chosen).run_cfg.early_stopping == 2
    run = resolve(sound, *chosen, "model.branches.sam=null").run_cfg
    assert (run.best_metric, run.early_stopping) == (None, None)
