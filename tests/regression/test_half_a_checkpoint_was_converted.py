"""``convert-checkpoint`` took files that lack a tensor or a branch, or have one of another shape.

It said "wrote N tensors" and ended well; stock LAVIS loads what it wrote without a word and leaves
the rest random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavis_msmedcap import cli
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoint_names import from_ours, with_aliases
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap

QUERY = "branches.clip.qformer.bert.encoder.layer.1.attention.self.query.weight"
NORM = {f"branches.clip.encoder.ln.{part}": torch.ones(24) for part in ("weight", "bias")}
Tensors = dict[str, Tensor]


@pytest.fixture
def stage1(stage1_settings: dict[str, Any]) -> Any:
    return Blip2DualQformer.from_config(stage1_settings)


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Returns what a conversion says, which must succeed or leave no target behind."""

    def run(source: Path, kind: str, *words: str, code: int = 2) -> str:
        target = tmp_path / f"target{'.safetensors' if kind == 'ours' else '.pth'}"
        target.unlink(missing_ok=True)
        assert (
            cli.main(["convert-checkpoint", str(source), str(target), "--to", kind, *words]) == code
        )
        assert target.exists() == (code == 0)
        told = capsys.readouterr()
        return told.err if code else told.out

    return run


def lose(state: Tensors) -> None:
    del state[QUERY]


def rename(state: Tensors) -> None:
    state[QUERY.replace("query", "querry")] = state.pop(QUERY)


def reshape(state: Tensors) -> None:
    state[QUERY] = state[QUERY][:5].clone()


def lose_a_layer(state: Tensors) -> None:
    for name in [name for name in state if ".clip.qformer.bert.encoder.layer.1." in name]:
        del state[name]


@pytest.mark.parametrize("with_settings", [True, False])
@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (lose, [f"missing: {QUERY}"]),
        (rename, [f"missing: {QUERY}", f"unexpected: {QUERY.replace('query', 'querry')}"]),
        (reshape, [f"wrong shape: {QUERY} is (5, 16) in the file, (16, 16) in the network"]),
        (lose_a_layer, ["missing: branches.clip.qformer.bert.encoder.layer.1.output.dense.bias"]),
    ],
)
def test_each_tensor_is_missed(
    stage1: Any,
    convert: Callable[..., str],
    tmp_path: Path,
    with_settings: bool,
    spoil: Callable[[Tensors], None],
    messages: list[str],
) -> None:
    header = stage1.checkpoint_metadata() if with_settings else {"arch": "blip2_dual_qformer"}
    state = stage1.trainable_state_dict()
    spoil(state)
    save_checkpoint(tmp_path / "a.safetensors", state, header)
    error = convert(tmp_path / "a.safetensors", "authors")
    if spoil is lose_a_layer and not with_settings:  # the SAM branch says that there are two
        messages = messages[:1]
    for message in messages:
        assert message in error
    convert(tmp_path / "a.safetensors", "blip2", "--branch", "sam", code=0)  # which is whole


def test_a_branch_of_the_settings_is_missed(
    stage1: Any, convert: Callable[..., str], tmp_path: Path
) -> None:
    state = {n: v for n, v in stage1.trainable_state_dict().items() if ".clip." in n}
    save_checkpoint(tmp_path / "a.safetensors", state, stage1.checkpoint_metadata())
    error = convert(tmp_path / "a.safetensors", "authors")
    assert "holds nothing of the sam branch" in error
    assert "--branch clip" in error
    convert(tmp_path / "a.safetensors", "authors", "--branch", "clip", code=0)


def test_files_of_others_must_be_complete_too(
    stage2_settings: dict[str, Any], convert: Callable[..., str], tmp_path: Path
) -> None:
    state = with_aliases(MSMedCap.from_config(stage2_settings).trainable_state_dict())
    theirs = from_ours({**state, **NORM}, "authors")
    torch.save({"model": theirs}, tmp_path / "a.pth")
    convert(tmp_path / "a.pth", "ours", "--arch=msmedcap", code=0)
    for name in ("ln_vision.bias", "sam_opt_proj.bias", "Qformer.bert.embeddings.LayerNorm.bias"):
        torch.save({"model": {k: v for k, v in theirs.items() if k != name}}, tmp_path / "a.pth")
        assert "missing: branches." in convert(tmp_path / "a.pth", "ours", "--arch=msmedcap")


def test_the_authors_stage_1_has_no_heads_of_sam(
    stage1: Any, convert: Callable[..., str], tmp_path: Path
) -> None:
    theirs = from_ours({**with_aliases(stage1.trainable_state_dict()), **NORM}, "authors")
    prefixed = ("sam_Qformer.", "sam_query_tokens")
    state = {k: v for k, v in theirs.items() if not k.startswith("sam_") or k.startswith(prefixed)}
    torch.save({"model": state}, tmp_path / "merged.pth")
    told = convert(tmp_path / "merged.pth", "ours", "--arch=blip2_dual_qformer", code=0)
    assert (
        "as expected (the authors' code has no heads of ITC and ITM beside a CLIP branch)" in told
    )
    (tmp_path / "target.safetensors").rename(tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", "authors", code=0)
    again = torch.load(tmp_path / "target.pth", weights_only=True)["model"]
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())
