"""Every mistake a user can make in a configuration: one message, before anything is built."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from broken_files import BROKEN_FILES, BROKEN_TEXTS
from broken_options import BROKEN_OPTIONS
from broken_relations import CAPTION, EVALUATE, PRETRAIN

from lavis_msmedcap import train
from lavis_msmedcap.run_sources import merge, packaged_configs, read_yaml

BASE = "projects/msmedcap/pretrain_mixed.yaml"
OTHER_BASES = {  # a packaged run, and what makes it sound without an earlier one
    "caption": {"stage1": None},
    "evaluate": {"finetuned": "package:assets/demo/msmedcap.safetensors"},
}
RELATIONS = {f"pretrain-{case}": PRETRAIN[case] for case in PRETRAIN}
RELATIONS |= {f"caption-{case}": CAPTION[case] for case in CAPTION}
RELATIONS |= {f"evaluate-{case}": EVALUATE[case] for case in EVALUATE}
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


@pytest.mark.parametrize("case", RELATIONS)
def test_broken_relation(
    case: str,
    base: dict[str, Any],
    tmp_path: Path,
    built: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = case.partition("-")[0]
    if run in OTHER_BASES:
        packaged = packaged_configs()[f"projects/msmedcap/{run}.yaml"]
        base = merge(read_yaml(packaged), {"model": OTHER_BASES[run]})
    words, *expected = RELATIONS[case]
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
