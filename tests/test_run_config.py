"""How a configuration is put together."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from lavis_msmedcap import evaluate, train
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.run_config import load_run_config, resolve_run_config
from lavis_msmedcap.run_options import parse_options
from lavis_msmedcap.run_sources import find_config, merge, packaged_configs, read_yaml

PRETRAIN = "projects/msmedcap/pretrain_mixed.yaml"

# as users of LAVIS write them: no scale, LAVIS' classes, keys that only LAVIS' code reads
LAVIS_CONFIG = """
model:
  arch: blip2
  model_type: pretrain
  load_pretrained: false
  freeze_vit: true
datasets:
  coco_caption:
    vis_processor:
      train: {name: blip2_image_train, image_size: 224}
    text_processor:
      train: {name: blip_caption}
run:
  task: image_text_pretrain
  lr_sched: linear_warmup_cosine_lr
  init_lr: 1e-4
  min_lr: 1e-5
  warmup_lr: 1e-6
  weight_decay: 0.05
  max_epoch: 2
  batch_size_train: 4
  batch_size_eval: 4
  num_workers: 0
  warmup_steps: 10
  seed: 42
  output_dir: output/BLIP2
  amp: True
  resume_ckpt_path: null
  evaluate: False
  train_splits: ["train"]
  device: cpu
  world_size: 1
  dist_url: env://
  distributed: True
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped stage-1 configuration, independent of the weights that ship with it."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    encoders = {name: {"encoder": {"weights": None}} for name in ("clip", "sam")}
    model = {"qformer": {"tokenizer": str(folder)}, "branches": encoders}
    config = merge(read_yaml(packaged_configs()[PRETRAIN]), {"model": model})
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


@pytest.fixture
def lavis_file(tmp_path: Path) -> Path:
    path = tmp_path / "lavis.yaml"
    path.write_text(LAVIS_CONFIG)
    return path


def load(path: Path, *options: str) -> dict[str, Any]:
    return load_run_config(str(path), options).to_dict()


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["a.b=1", "a.c=x"], {"a": {"b": 1, "c": "x"}}),
        (["a.b", "1", "a.c", "x"], {"a": {"b": 1, "c": "x"}}),
        (["a.b=1", "a.b=2"], {"a": {"b": 2}}),
        (["a=null"], {"a": None}),
        (["a=1e-4"], {"a": 1e-4}),
        (["a=[train,val]"], {"a": ["train", "val"]}),
        (["a={roco: 2}"], {"a": {"roco": 2}}),
        (["a=x=y"], {"a": "x=y"}),
        (["a.prompt", "what=who?"], {"a": {"prompt": "what=who?"}}),
        (["a='b: c'"], {"a": "b: c"}),
        (["a=true"], {"a": True}),
        (["a=${scale}"], {"a": "${scale}"}),
        (["a.b=null", "a.b.c=1"], {"a": {"b": {"c": 1}}}),
    ],
)
def test_options_in_both_forms(words: list[str], expected: dict[str, Any]) -> None:
    assert parse_options(words) == (expected, [])


def test_options_agree_with_omegaconf() -> None:
    words = ["a.b=1e-3", "a.c=010", "a.d=off", "a.e=[1,{x: null}]", "f=2024-01-01", "g= x "]
    expected = OmegaConf.to_container(OmegaConf.from_dotlist(words))
    assert parse_options(words) == (expected, [])


# --- precedence --------------------------------------------------------------------------------


def test_default_body_overlay_options_win_in_this_order(tmp_path: Path, sound: Path) -> None:
    config = yaml.safe_load(sound.read_text())
    assert load(sound)["model"]["max_txt_len"] == 48  # packaged default of model_type demo
    config["model"]["max_txt_len"] = 30
    config["scales"]["demo"]["run"]["seed"] = 7
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    resolved = load(path)
    assert (resolved["model"]["max_txt_len"], resolved["run"]["seed"]) == (30, 7)
    resolved = load(path, "model.max_txt_len=20", "run.seed=8")
    assert (resolved["model"]["max_txt_len"], resolved["run"]["seed"]) == (20, 8)


def test_scale_chooses_overlay_and_packaged_defaults() -> None:
    demo, _ = resolve_run_config(PRETRAIN)
    paper, _ = resolve_run_config(PRETRAIN, ["scale=paper"])
    assert (demo.scale, paper.scale) == ("demo", "paper")
    assert demo.model_cfg.branches.sam.encoder.image_size == 128
    assert paper.model_cfg.branches.sam.encoder.image_size == 1024
    assert demo.datasets_cfg.roco.vis_processor.eval.sam_image_size == 128
    assert paper.datasets_cfg.roco.vis_processor.eval.sam_image_size == 1024
    assert (paper.run_cfg.max_epoch, paper.run_cfg.warmup_steps) == (3, 5000)
    assert "scales" not in demo.config


def test_options_choose_the_default_that_is_loaded(sound: Path) -> None:
    # LAVIS changes the value and keeps loading the default of the file's own model_type
    config, _ = resolve_run_config(
        str(sound), ["model.model_type=paper", "datasets.roco.type=paper"]
    )
    assert config.model_cfg.embed_dim == 256
    assert config.datasets_cfg.roco.build_info.root == "data/roco"
    assert config.datasets_cfg.medicat.build_info.root == "phantom:medicat"


def test_a_dataset_added_by_an_option_gets_its_defaults(sound: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(sound.read_text())
    del config["datasets"]["medicat"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    assert load(path, "datasets.medicat.type=demo")["datasets"]["medicat"]["domain"] == "medical"


def test_null_drops_a_branch_and_a_dataset(sound: Path) -> None:
    resolved = load(sound, "model.branches.clip=null", "datasets.medicat=null")
    assert resolved["model"]["branches"]["clip"] is None
    assert resolved["model"]["branches"]["sam"]["num_query_token"] == 8
    assert list(resolved["datasets"]) == ["coco2014_caption", "roco"]


def test_several_options_flags_add_up(sound: Path) -> None:
    parser = argparse.ArgumentParser()
    train.add_options_argument(parser)
    args = parser.parse_args(
        ["--options", "run.seed=1", "run.max_epoch=2", "--options", "run.seed=3"]
    )
    run = load(sound, *args.options)["run"]
    assert (run["seed"], run["max_epoch"]) == (3, 2)


def test_numbers_get_the_type_that_the_schema_asks_for(sound: Path) -> None:
    run = load(sound, "run.init_lr='1e-3'", "run.weight_decay=0", "run.samples_per_epoch=1e3")[
        "run"
    ]
    assert run["init_lr"] == pytest.approx(1e-3)
    assert isinstance(run["weight_decay"], float)
    assert isinstance(run["samples_per_epoch"], int)


def test_references_are_resolved(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SEED", "5")
    run = load(sound, "run.seed=${oc.env:MY_SEED}", "run.output_dir=out/${scale}/${run.seed}")[
        "run"
    ]
    assert (run["seed"], run["output_dir"]) == (5, "out/demo/5")


def test_overrides_of_the_entry_point_win(sound: Path) -> None:
    options = ["run.evaluate=false"]
    config = load_run_config(str(sound), options, evaluate.OVERRIDES)
    assert config.run_cfg.evaluate is True


def test_the_saved_configuration_gives_the_same_run(sound: Path, tmp_path: Path) -> None:
    first = load_run_config(str(sound), ["run.seed=3", "model.branches.clip=null"])
    saved = tmp_path / "config.yaml"
    saved.write_text(first.to_yaml())
    assert load(saved) == first.to_dict()


# --- LAVIS' interface --------------------------------------------------------------------------


def test_interface_of_lavis_config(sound: Path, caplog: pytest.LogCaptureFixture) -> None:
    from lavis.common.registry import registry

    config = load_run_config(str(sound))
    assert registry.get("configuration") is config
    assert config.get_config() is config.config
    assert config.run_cfg.task == "mixed_semantic_pretrain"
    assert set(config.to_dict()) == {"scale", "model", "datasets", "run"}
    with caplog.at_level(logging.INFO):
        config.pretty_print()
    assert "Running Parameters" in caplog.text
    assert "Dataset roco" in caplog.text
    assert load_run_config(str(sound)) is not config  # a second run in one process


def test_banner_says_which_scale_runs(sound: Path, lavis_file: Path) -> None:
    demo, _ = resolve_run_config(str(sound))
    assert demo.banner() == (
        "scale: demo — phantoms and miniature backbones; --options scale=paper is the paper"
    )
    paper, _ = resolve_run_config(PRETRAIN, ["scale=paper"])
    assert paper.banner().startswith("scale: paper — real data")
    plain, _ = resolve_run_config(str(lavis_file))
    assert plain.banner() == f"configuration: {lavis_file}"


def test_a_lavis_configuration_resolves_as_lavis_resolves_it(lavis_file: Path) -> None:
    from lavis.common.config import Config

    theirs = Config(argparse.Namespace(cfg_path=str(lavis_file), options=["run.max_epoch=3"]))
    expected = OmegaConf.to_container(theirs.get_config(), resolve=True)
    del expected["preprocess"]  # which no run reads
    assert load(lavis_file, "run.max_epoch=3") == expected


def test_foreign_keys_are_let_through_but_names_and_types_are_checked(lavis_file: Path) -> None:
    options = ["run.my_key=1", "model.my_key=1", "datasets.coco_caption.my_key=1"]
    assert resolve_run_config(str(lavis_file), options)[1] == []
    _, problems = resolve_run_config(
        str(lavis_file),
        [
            "run.task=image_text_pretrian",
            "run.max_epoch=many",
            "run.valid_splits=[vall]",
            "model.load_pretrained=perhaps",
            "datasets.coco_caption.vis_processor.train.name=blip2_imag_train",
        ],
    )
    assert len(problems) == 5
    for part in (
        "did you mean 'image_text_pretrain'?",
        "run.max_epoch is 'many'",
        "no dataset has a split 'vall' (coco_caption: train, val, test)",
        "model.load_pretrained is 'perhaps'",
        "did you mean 'blip2_image_train'?",
    ):
        assert part in "\n".join(problems)


def test_a_likely_typo_in_a_foreign_section_is_a_warning(
    lavis_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(lavis_file, "run.bacth_size_train=8")
    assert "run.bacth_size_train" in caplog.text
    assert "run.batch_size_train" in caplog.text


# --- files -------------------------------------------------------------------------------------


def test_packaged_copy_is_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config(PRETRAIN) == packaged_configs()[PRETRAIN]
    own = tmp_path / PRETRAIN
    own.parent.mkdir(parents=True)
    own.write_text("run: {}\n")
    assert find_config(PRETRAIN).resolve() == own.resolve()


def test_unknown_file_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=PRETRAIN):
        find_config("zzz.yml")


def test_merge_copies() -> None:
    base = {"a": {"b": [1]}, "c": {"d": 1}}
    merged = merge(base, {"a": {"e": 2}, "c": None})
    assert merged == {"a": {"b": [1], "e": 2}, "c": None}
    merged["a"]["b"].append(2)
    assert base == {"a": {"b": [1]}, "c": {"d": 1}}
