"""Every mistake a user can make in a configuration: one message, before anything is built."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lavis_msmedcap import train
from lavis_msmedcap.run_sources import merge, packaged_configs, read_yaml

BASE = "projects/msmedcap/pretrain_mixed.yaml"
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The shipped stage-1 configuration, independent of the weights that ship with it."""
    tokenizer = tmp_path_factory.mktemp("tokenizer")
    (tokenizer / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    sound = {
        "model": {
            "qformer": {"tokenizer": str(tokenizer)},
            "branches": {
                "clip": {"encoder": {"weights": None}},
                "sam": {"encoder": {"weights": None}},
            },
        }
    }
    return merge(read_yaml(packaged_configs()[BASE]), sound)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records every dataset and model that is built."""
    import lavis  # noqa: F401 - registers
    from lavis.common.registry import registry
    from lavis.datasets.builders.base_dataset_builder import BaseDatasetBuilder

    from lavis_msmedcap.run_config import register_plugin

    register_plugin()
    seen: list[str] = []

    def record(*args: Any, **kwargs: Any) -> None:
        seen.append(repr(args))
        raise AssertionError("something was built")

    names = registry.mapping["builder_name_mapping"]
    for cls in {BaseDatasetBuilder, *(names[n] for n in ("roco", "medicat", "coco2014_caption"))}:
        monkeypatch.setattr(cls, "build_datasets", record)
    for name in ("blip2_dual_qformer", "msmedcap"):
        monkeypatch.setattr(registry.mapping["model_name_mapping"][name], "from_config", record)
    return seen


def run_train(path: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs the entry point on a broken configuration and returns its message."""
    arguments = ["--cfg-path", str(path)] + (["--options", *options] if options else [])
    code = train.main(arguments)
    captured = capsys.readouterr()
    assert code == train.EXIT_WRONG_INPUT
    assert captured.err.startswith("error: ")
    assert "Traceback" not in captured.err
    return captured.err


def write(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


# options, and what the message must contain
BROKEN_OPTIONS = {
    "typo_in_run": ("run.bacth_size_train=8", "run.bacth_size_train", "run.batch_size_train?"),
    "typo_in_model": (
        "model.branches.clip.num_query_tokens=4",
        "model.branches.clip.num_query_tokens",
        "did you mean model.branches.clip.num_query_token?",
    ),
    "typo_in_processor": (
        "datasets.roco.vis_processor.train.imagesize=64",
        "datasets.roco.vis_processor.train.imagesize",
        "did you mean datasets.roco.vis_processor.train.image_size?",
    ),
    "typo_in_dataset": (
        "datasets.roco.raito=2",
        "datasets.roco.raito is not a known key",
        "datasets.roco.ratio",
    ),
    "key_of_another_section": ("run.embed_dim=4", "run.embed_dim", "did you mean model.embed_dim?"),
    "key_of_the_other_model": ("model.stage1=x", "model.stage1 is not a known key"),
    "typo_in_section": ("rnu.seed=1", "'rnu' is unknown", "did you mean 'run'?"),
    "section_as_value": ("run=3", "--options: run is 3", "expected a mapping"),
    "pair_after_assignment": (
        "run.seed=1 run.max_epoch 7",
        "mix 'key=value' and 'key value'",
        "write run.max_epoch=7",
    ),
    "assignment_after_pair": (
        "run.max_epoch 7 run.seed=1",
        "mix 'key value' and 'key=value'",
        "'run.seed=1'",
        "write all of them as key=value",
    ),
    "odd_pairs": ("run.max_epoch 7 run.seed", "'run.seed' has no value", "key=value"),
    "spaces_around_equals": ("run.seed = 3", "'=' on its own", "without spaces"),
    "empty_value": ("run.output_dir=", "run.output_dir has no value", "run.output_dir=VALUE"),
    "no_key": ("=3", "(nothing)", "run.max_epoch"),
    "double_dot": ("run..seed=3", "run..seed", "names with dots between"),
    "list_element": ("run.train_splits[0]=val", "run.train_splits[0]", "run.train_splits=[a, b]"),
    "key_below_a_value": ("run.seed=1 run.seed.x=2", "run.seed.x", "was set to 1 before"),
    "colon_without_space": (
        "run.train_dataset_ratios={roco:9}",
        "'roco:9'",
        "a space after the colon",
    ),
    "not_yaml": ("run.train_splits=[train", "run.train_splits=[train", "not readable as YAML"),
    "scale_overlay_by_option": ("scales.demo.run.max_epoch=1", "scales", "run.max_epoch=1"),
    "unknown_scale": ("scale=papper", "scale 'papper' is unknown", "did you mean 'paper'?"),
    "unknown_reference": ("run.log_freq=${run.sed}", "run.log_freq", "run.sed", "${run.seed}"),
    "unknown_arch": (
        "model.arch=blip2_dual_qfromer",
        "model.arch 'blip2_dual_qfromer' is unknown",
        "did you mean 'blip2_dual_qformer'?",
    ),
    "unknown_model_type": ("model.model_type=nope", "model.model_type 'nope'", "demo, paper"),
    "unknown_dataset": ("datasets.rocco.type=demo", "'rocco' is unknown", "did you mean 'roco'?"),
    "unknown_dataset_type": ("datasets.roco.type=deflt", "datasets.roco.type 'deflt'", "'default'"),
    "unknown_task": (
        "run.task=mixed_semantic_pretrian",
        "run.task 'mixed_semantic_pretrian'",
        "'mixed_semantic_pretrain'?",
    ),
    "unknown_runner": (
        "run.runner=runner_msmedcp",
        "run.runner",
        "did you mean 'runner_msmedcap'?",
    ),
    "foreign_runner": ("run.runner=runner_base", "run.runner: runner_msmedcap", "runner_base"),
    "unknown_lr_sched": (
        "run.lr_sched=linear_warmup_cosine",
        "run.lr_sched 'linear_warmup_cosine'",
        "'linear_warmup_cosine_lr'?",
    ),
    "unknown_processor": (
        "datasets.roco.text_processor.train.name=msmedcap_captoin",
        "datasets.roco.text_processor.train.name 'msmedcap_captoin'",
        "did you mean 'msmedcap_caption'?",
    ),
    "number_as_words": ("run.init_lr=fast", "run.init_lr is 'fast'", "expected a number"),
    "fraction": ("run.max_epoch=1.5", "run.max_epoch is 1.5", "a whole number"),
    "out_of_range": ("run.batch_size_train=0", "run.batch_size_train is 0", "at least 1"),
    "not_a_boolean": ("run.evaluate=maybe", "run.evaluate is 'maybe'", "true or false"),
    "unknown_choice": ("run.amp=bf61", "run.amp is 'bf61'", "off, bf16, fp16"),
    "null_for_a_number": ("run.max_epoch=null", "run.max_epoch is null", "a whole number"),
    "list_expected": ("run.train_splits=train", "run.train_splits is 'train'", "write [train]"),
    "unknown_train_split": (
        "run.train_splits=[trian]",
        "run.train_splits[0]",
        "did you mean train?",
    ),
    "unknown_valid_split": ("run.valid_splits=[vall]", "run.valid_splits[0]", "did you mean val?"),
    "nothing_to_train_on": ("run.train_splits=[]", "run.train_splits is empty", "write [train]"),
    "nothing_to_evaluate": (
        "run.evaluate=true run.valid_splits=[]",
        "run.test_splits is empty",
        "write [test]",
    ),
    "unknown_ratio": (
        "run.train_dataset_ratios={rocoo: 1}",
        "run.train_dataset_ratios 'rocoo'",
        "did you mean 'roco'?",
    ),
    "negative_ratio": (
        "run.train_dataset_ratios={roco: -1}",
        "run.train_dataset_ratios.roco is -1",
        "at least 0",
    ),
    "min_lr_above_init_lr": ("run.min_lr=1", "run.min_lr is 1", "more than run.init_lr"),
    "unknown_device": ("run.device=gpu", "run.device 'gpu'", "cpu or cuda"),
    "resume": ("run.resume_ckpt_path=output", "run.resume_ckpt_path", "model.load_finetuned=true"),
    "every_branch_dropped": (
        "model.branches.clip=null model.branches.sam=null",
        "model.branches: every branch is null",
        "keep clip, sam, or both",
    ),
    "every_dataset_dropped": (
        "datasets.roco=null datasets.medicat=null datasets.coco2014_caption=null "
        "model.branches.clip=null model.branches.sam.train_on=[]",
        "datasets: is empty",
        "at least one dataset",
    ),
    "branch_without_data": (
        "datasets.coco2014_caption=null",
        "model.branches.clip.train_on is [general]",
        "model.branches.clip.train_on=[]",
    ),
    "unknown_domain": (
        "model.branches.sam.train_on=[medcal]",
        "model.branches.sam.train_on[0] is 'medcal'",
        "did you mean medical?",
    ),
    "unknown_branch": (
        "model.branches.sma.num_query_token=4",
        "model.branches.sma",
        "branches.sam?",
    ),
    "unknown_starting_point": (
        "model.branches.sam.init=brt",
        "model.branches.sam.init is 'brt'",
        "did you mean bert?",
    ),
    "starting_point_without_file": (
        "model.branches.sam.init=bert",
        "model.branches.sam.init is bert",
        "model.pretrained.bert names no file",
    ),
    "unknown_pretrained": (
        "model.pretrained.blip=x.pth",
        "model.pretrained.blip is not a known key",
        "model.pretrained.blip2?",
    ),
    "missing_weights": (
        "model.branches.clip.encoder.weights=nowhere.pth",
        "model.branches.clip.encoder.weights",
        "nowhere.pth does not exist",
    ),
    "finetuned_without_path": (
        "model.load_finetuned=true",
        "model.finetuned is null",
        "model.load_finetuned=false",
    ),
    "finetuned_not_used": (
        "model.finetuned=here",
        "model.finetuned is 'here', but not used",
        "model.load_finetuned=true",
    ),
    "finetuned_not_there": (
        "model.load_finetuned=true model.finetuned=nowhere",
        "model.finetuned: no checkpoint",
        "nowhere",
    ),
    "heads_do_not_divide": (
        "model.qformer.num_heads=5",
        "model.qformer.hidden_size is 128",
        "model.qformer.num_heads (5)",
    ),
    "global_block_beyond_depth": (
        "model.branches.sam.encoder.global_attn_indexes=[1,4]",
        "global_attn_indexes has [4]",
        "from 0 to 3",
    ),
    "size_against_its_width": (
        "model.branches.sam.encoder.size=vit_l",
        "model.branches.sam.encoder.size is vit_l (width 1024, depth 24",
        "but width is 96, depth is 4",
        "take out size, or the other keys",
    ),
    "pool_leaves_a_rest": (
        "model.branches.sam.encoder.tokens=spatial_pooled model.branches.sam.encoder.pool=3",
        "model.branches.sam.encoder.pool is 3",
        "the 16 positions per side",
    ),
    "mlp_of_clip_l": (
        "model.branches.clip.encoder.name=clip_l model.branches.clip.encoder.mlp_ratio=2",
        "model.branches.clip.encoder.mlp_ratio is 2",
        "always 4",
    ),
    "views_of_another_size": (
        "datasets.roco.vis_processor.eval.sam_image_size=64",
        "datasets.roco.vis_processor.eval.sam_image_size is 64",
        "make them equal",
    ),
}


@pytest.mark.parametrize("case", BROKEN_OPTIONS)
def test_broken_option(
    case: str,
    base: dict[str, Any],
    tmp_path: Path,
    built: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, *expected = BROKEN_OPTIONS[case]
    message = run_train(write(tmp_path / "run.yaml", base), split_words(words), capsys)
    assert [text for text in expected if text not in message] == []
    assert message.count("\n  ") == 1, f"one mistake, one problem:\n{message}"
    assert built == []


def split_words(words: str) -> list[str]:
    """Splits at spaces, but not inside braces."""
    joined: list[str] = []
    for word in words.split(" "):
        if joined and joined[-1].count("{") > joined[-1].count("}"):
            joined[-1] += f" {word}"
        else:
            joined.append(word)
    return joined


def test_option_that_yaml_reads_as_a_mapping(
    base: dict[str, Any], tmp_path: Path, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "run.yaml", base)
    message = run_train(path, ["run.output_dir=a: b"], capsys)
    assert "run.output_dir=a: b: YAML reads this as a mapping" in message
    assert "'run.output_dir=\"a: b\"'" in message
    assert built == []


def test_option_value_cut_by_the_shell(
    base: dict[str, Any], tmp_path: Path, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "run.yaml", base)
    message = run_train(path, ["run.output_dir=my", "folder"], capsys)
    assert "put that in quotes: 'run.output_dir=my folder'" in message
    assert built == []


@NO_CUDA
def test_cuda_without_cuda(
    base: dict[str, Any], tmp_path: Path, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = run_train(write(tmp_path / "run.yaml", base), ["run.device=cuda"], capsys)
    assert "run.device 'cuda'" in message
    assert "use auto" in message
    assert built == []


def test_torchrun_with_distributed_off(
    base: dict[str, Any],
    tmp_path: Path,
    built: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = run_train(write(tmp_path / "run.yaml", base), ["run.distributed=false"], capsys)
    assert "torchrun started 2 processes" in message
    assert built == []


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def edit(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return edit


def put(value: Any, *keys: str) -> Callable[[dict[str, Any]], None]:
    def edit(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config.setdefault(key, {})
        config[keys[-1]] = value

    return edit


BROKEN_FILES = {
    "unknown_top_level": (put({}, "trainer"), "'trainer' is unknown", "model, name, run, scale"),
    "preprocess": (put({}, "preprocess"), "preprocess:", "datasets.<name>.vis_processor"),
    "no_task": (drop("run", "task"), "run.task is missing", "the registered task"),
    "no_arch": (drop("model", "arch"), "model.arch is missing", "blip2_dual_qformer"),
    "no_model_type": (drop("model", "model_type"), "model.model_type is missing", "demo, paper"),
    "empty_dataset": (put(None, "datasets", "roco"), "datasets.roco is empty", "'roco: {}'"),
    "dataset_as_text": (put("demo", "datasets", "roco"), "datasets.roco is 'demo'", "a mapping"),
    "placeholder": (put("???", "run", "seed"), "run.seed", "replace ???"),
    "text_for_a_number": (put("three", "run", "seed"), "run.seed is 'three'", "a whole"),
    "scale_as_list": (put(["demo"], "scale"), "scale \"['demo']\" is unknown", "'demo'"),
    "no_scale": (drop("scale"), "scales: has no effect", "add 'scale: demo'"),
    "scales_as_list": (put([1], "scales"), "scales is [1]", "settings by scale"),
    "overlay_section": (
        put({}, "scales", "paper", "rnu"),
        "scales.paper: key 'rnu' is unknown",
        "did you mean 'run'?",
    ),
    "overlay_typo": (
        put(3, "scales", "demo", "run", "max_epohc"),
        "run.max_epohc is not a known key",
        "run.max_epoch",
    ),
    "null_section": (put(None, "run", "train_dataset_ratios", "roco"), "roco is null", "a number"),
    "processor_removed": (
        put({"train": None}, "datasets", "roco", "vis_processor"),
        "datasets.roco.vis_processor.train is null",
        "expected a mapping",
    ),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_file(
    case: str,
    base: dict[str, Any],
    tmp_path: Path,
    built: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit, *expected = BROKEN_FILES[case]
    config = merge(base, {})
    edit(config)
    message = run_train(write(tmp_path / "run.yaml", config), [], capsys)
    assert [text for text in expected if text not in message] == []
    if case != "no_scale":  # of which every ${scale} is another victim
        assert message.count("\n  ") == 1, f"one mistake, one problem:\n{message}"
    assert built == []


BROKEN_TEXTS = {
    "not_yaml": ("model:\n  arch: [a\nrun: {}\n", "line 3", "not YAML"),
    "tab": ("model:\n\tarch: a\n", "line 2", "spaces, not tabs"),
    "duplicate_key": ("run:\n  seed: 1\n  seed: 2\n", "line 3", "duplicate key seed"),
    "code": ("run: !!python/object/apply:os.getcwd []\n", "line 1", "not YAML"),
    "brace": ("run: {seed: '${x'}\n", "run.seed", "both braces"),
    "empty": ("# nothing\n", "is empty", "model, datasets and run"),
    "list": ("- 1\n", "is not a mapping", "model, datasets and run"),
}


@pytest.mark.parametrize("case", BROKEN_TEXTS)
def test_file_that_is_no_configuration(
    case: str, tmp_path: Path, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text, *expected = BROKEN_TEXTS[case]
    path = tmp_path / "run.yaml"
    path.write_text(text)
    message = run_train(path, [], capsys)
    assert [part for part in [*expected, str(path)] if part not in message] == []
    assert built == []


def test_missing_sections_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = run_train(write(tmp_path / "run.yaml", {"scale": "demo"}), [], capsys)
    for key in ("model", "datasets", "run"):
        assert f"{key}: is missing" in message


def test_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    message = run_train(Path("projects/msmedcap/pretrain_mixd.yaml"), [], capsys)
    assert f"did you mean {BASE}?" in message


def test_folder_instead_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is a folder; name a .yaml file" in run_train(tmp_path, [], capsys)


def test_all_problems_are_told_at_once(
    base: dict[str, Any], tmp_path: Path, built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "run.bacth_size_train=8",
        "run.task=nope",
        "model.qformer.num_heads=5",
        "datasets.rocco.type=demo",
        "run.resume_ckpt_path=nowhere",
        "model.branches.clip.encoder.weights=nowhere.pth",
        "run.output_dir=",
    ]
    message = run_train(write(tmp_path / "run.yaml", base), options, capsys)
    assert "7 problems in " in message
    assert built == []


def test_paper_scale_without_data_lists_everything(
    tmp_path: Path,
    built: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for root in ("LAVIS_MSMEDCAP_CACHE", "LAVIS_CACHE_ROOT"):
        monkeypatch.setenv(root, str(tmp_path))
    message = run_train(Path(BASE), ["scale=paper"], capsys)
    for part in (
        "model.qformer.tokenizer",
        "model.branches.clip.encoder.weights",
        "model.pretrained.blip2",
        "model.branches.sam.encoder.weights",
        "model.pretrained.bert",
        "coco2014_caption",
        "roco",
        "medicat",
    ):
        assert part in message
    assert built == []


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(train.DEBUG, "1")
    with pytest.raises(ValueError, match="is a folder"), contextlib.nullcontext():
        train.main(["--cfg-path", str(tmp_path)])
