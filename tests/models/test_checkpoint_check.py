"""What the check of a run says of the checkpoint that it names, before anything is built."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models import checkpoints
from lavis_msmedcap.models.checkpoint_names import from_ours
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.run_config import resolve_run_config

EVALUATE, CAPTION = "projects/msmedcap/evaluate.yaml", "projects/msmedcap/caption.yaml"
SHIPPED = package_path("assets/demo/msmedcap.safetensors")
SAM = "model.branches.sam.encoder"


@pytest.fixture(scope="module")
def trained() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The shipped captioner, and the settings of the demo."""
    config, _ = resolve_run_config(EVALUATE)
    return read_checkpoint(SHIPPED)[0], config.to_dict()["model"]


@pytest.fixture
def write(trained: tuple[dict[str, Tensor], dict[str, Any]], tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint; ``change`` alters its tensors and settings before."""

    def write(change: Callable[..., Any] = lambda *_: None, arch: str = "msmedcap") -> Path:
        state, settings = dict(trained[0]), copy.deepcopy(trained[1])
        change(state, settings)
        file = tmp_path / "c.safetensors"
        save_checkpoint(file, state, {"arch": arch, "model": json.dumps(settings)})
        return file

    return write


def told(file: Path, *options: str, key: str = "finetuned", cfg: str = EVALUATE) -> list[str]:
    """Resolves a run configuration and returns what it says of the checkpoint."""
    _, problems = resolve_run_config(cfg, [f"model.{key}={file}", *options])
    head = f"model.{key}: {file}"
    return [p.removeprefix(head).lstrip(": ") for p in problems if p.startswith(head)]


def test_a_sound_one_is_no_problem_and_no_value_is_read(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write()

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("values were read")

    monkeypatch.setattr(checkpoints, "load_file", refuse)
    assert told(file) == []
    assert told(SHIPPED) == []  # by whatever its header says
    start = time.process_time()
    checkpoints.read_header(file)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("option", "cure"),
    [
        ('model.prompt="a photo of"', 'set model.prompt="Question: Describe the image. Answer:"'),
        (f"{SAM}.tokens=spatial_pooled", f'set {SAM}.tokens="spatial"'),
        (f"{SAM}.input=authors", f'set {SAM}.input="raw"'),
        (f"{SAM}.window_size=2", f"set {SAM}.window_size=4"),
        (f"{SAM}.num_heads=2", f"set {SAM}.num_heads=4"),
        ("model.branches.clip.encoder.num_heads=8", "set model.branches.clip.encoder.num_heads=4"),
        ("model.qformer.num_heads=8", "set model.qformer.num_heads=4"),
        (f"{SAM}.weights=null", f'set {SAM}.weights="package:assets/demo/sam.safetensors"'),
    ],
)
def test_what_no_shape_tells(write: Callable[..., Path], option: str, cure: str) -> None:
    (problem,) = told(write(), option)
    assert problem.startswith("was trained with ")
    assert problem.endswith(f"{cure}, or train again")


@pytest.mark.parametrize(
    "options",
    [
        ("model.llm.precision=bf16", "model.qformer.dropout=0.3", "model.max_txt_len=80"),
        ("model.branches.clip.train_on=[medical]", f"{SAM}.precision=bf16"),
        (f"{SAM}.pool=4",),  # not used by spatial tokens
        ("model.llm.gradient_checkpointing=true", "model.offline=false"),
    ],
)
def test_what_may_differ(write: Callable[..., Path], options: tuple[str, ...]) -> None:
    assert told(write(), *options) == []


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("model.branches.clip.num_query_token=4",), ["model.branches.clip.num_query_token=8"]),
        (
            ("model.qformer.hidden_size=64", "model.qformer.intermediate_size=128"),
            ["model.qformer.hidden_size=128", "model.qformer.intermediate_size=256"],
        ),
        (("model.qformer.num_layers=5",), ["model.qformer.num_layers=3"]),
        (("model.qformer.cross_attention_freq=1",), ["model.qformer.cross_attention_freq=2"]),
        ((f"{SAM}.out_chans=32",), [f"set {SAM} to the encoder"]),
        ((f"{SAM}.tokens=channel",), [f"set {SAM} to the encoder"]),
    ],
)
def test_shapes_tell_sizes_where_the_header_has_no_settings(
    write: Callable[..., Path], options: tuple[str, ...], parts: list[str]
) -> None:
    problems = told(write(lambda _, settings: settings.clear()), *options)
    assert len(problems) == len(parts)
    assert all(any(part in problem for problem in problems) for part in parts)


def test_a_mistake_is_told_once(write: Callable[..., Path]) -> None:
    assert len(told(write(), f"{SAM}.tokens=channel")) == 1


def test_llm_of_another_width(write: Callable[..., Path], tmp_path: Path) -> None:
    for path in package_path("assets/demo/opt").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["hidden_size"] = config["word_embed_proj_dim"] = 32
    (tmp_path / "config.json").write_text(json.dumps(config))
    (problem,) = told(write(), f"model.llm.weights={tmp_path}")
    assert "in front of an LLM of width 160, but that of model.llm.weights has 32" in problem


def test_a_branch_that_the_file_lacks(write: Callable[..., Path]) -> None:
    def drop(state: dict[str, Tensor], settings: dict[str, Any]) -> None:
        settings["branches"]["sam"] = None
        for name in [name for name in state if ".sam." in name]:
            del state[name]

    (problem,) = told(write(drop))
    assert "holds nothing of the sam branch" in problem
    assert told(write(drop), "model.branches.sam=null") == []


def test_a_captioner_as_stage_1_and_the_other_way_round(write: Callable[..., Path]) -> None:
    assert told(write(), key="stage1", cfg=CAPTION) == [
        "holds a msmedcap; expected a blip2_dual_qformer. Use model.finetuned for a captioner"
    ]
    (problem,) = told(write(arch="blip2_dual_qformer"))
    assert "this model is a msmedcap; use it as model.stage1" in problem


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.safetensors", SHIPPED.read_bytes()[:4000], "is damaged"),
        ("c.safetensors", SHIPPED.read_bytes()[:-1], "is damaged"),
        ("c.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git-LFS"),
        ("config.json", b'{"model_type": "opt"}', "is not a weights file: it is JSON"),
        ("c.pth", b"<html>", "a web page"),
    ],
)
def test_files_that_are_no_checkpoint(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    _, problems = resolve_run_config(EVALUATE, [f"model.finetuned={tmp_path / name}"])
    (problem,) = [p for p in problems if p.startswith("model.finetuned: ")]
    assert message in problem


def test_an_encoder_is_no_checkpoint() -> None:
    sam = package_path("assets/demo/sam.safetensors")
    (problem,) = told(sam, key="stage1", cfg=CAPTION)
    assert problem.startswith("is no checkpoint of a Q-Former")


def test_names_of_others(trained: tuple[dict[str, Tensor], Any], tmp_path: Path) -> None:
    clip = {name: v for name, v in trained[0].items() if ".clip." in name}
    file = tmp_path / "blip2.safetensors"
    save_file(from_ours(clip, "blip2"), file)
    assert told(file, "model.branches.sam=null") == []
    (problem,) = told(file, "model.branches.sam=null", "model.branches.clip.num_query_token=4")
    assert "num_query_token 8, but it is 4" in problem
    torch.save({"model": from_ours(clip, "blip2")}, tmp_path / "blip2.pth")
    assert told(tmp_path / "blip2.pth") == []  # read when it is loaded


def test_the_authors_train_and_evaluate_differently(write: Callable[..., Path]) -> None:
    def as_authors(_: Any, settings: dict[str, Any]) -> None:
        settings["prompt"] = ""
        settings["branches"]["clip"]["encoder"]["image_size"] = 32

    file = write(as_authors)
    assert len(told(file)) == 2
    sizes = ("model.branches.clip.encoder.image_size=64", "model.prompt=x")
    _, problems = resolve_run_config(EVALUATE, ["scale=authors", f"model.finetuned={file}", *sizes])
    about = [p for p in problems if p.startswith("model.finetuned")]
    assert about  # other sizes than the demo's
    assert not [p for p in about if "prompt" in p or "clip.encoder.image_size" in p]
