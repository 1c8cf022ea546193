"""Names and shapes of our checkpoints against those of LAVIS' own models, both ways."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from lavis_models import lavis_stage1, lavis_stage2
from torch import Tensor, nn

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoint_names import (
    ALIASES,
    NOT_TRAINED,
    PARTS,
    arch_of,
    branches_of,
    from_ours,
    kind_of,
    settle_aliases,
    to_ours,
    with_aliases,
)
from lavis_msmedcap.models.msmedcap import MSMedCap

QFORMER = "bert.encoder.layer.0.attention.self.key.weight"


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def trained(model: nn.Module) -> dict[str, Tensor]:
    """What LAVIS' runner saves: everything but frozen parameters."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


@pytest.fixture(params=["stage1", "stage2"])
def pair(
    request: Any, stage1_settings: dict[str, Any], stage2_settings: dict[str, Any]
) -> tuple[Any, nn.Module]:
    """Our model with the CLIP branch alone, its layer norm trained as in LAVIS, and LAVIS' own."""
    settings = stage1_settings if request.param == "stage1" else stage2_settings
    settings["branches"]["sam"] = None
    settings["branches"]["clip"]["encoder"]["freeze_ln"] = False
    if request.param == "stage1":
        return Blip2DualQformer.from_config(settings), lavis_stage1(settings)
    return MSMedCap.from_config(settings), lavis_stage2(settings)


def test_our_names_become_exactly_those_of_lavis(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    renamed = shapes(from_ours(with_aliases(ours.trainable_state_dict()), "blip2"))
    wanted = shapes(trained(theirs))
    del wanted["Qformer.bert.embeddings.position_ids"]  # a constant
    wanted.pop("opt_model.lm_head.weight", None)  # frozen, but an alias that LAVIS forgets to drop
    assert renamed == wanted


def test_the_names_of_lavis_become_exactly_ours(pair: tuple[Any, nn.Module]) -> None:
    ours, theirs = pair
    renamed = settle_aliases(to_ours(theirs.state_dict()), "lavis")
    aside = {name for name in renamed if any(re.search(p, name) for p in NOT_TRAINED)}
    assert shapes({n: v for n, v in renamed.items() if n not in aside}) == shapes(
        ours.trainable_state_dict()
    )
    frozen = {name for name, p in theirs.named_parameters() if not p.requires_grad}
    assert len(frozen) > 20
    assert set(to_ours(dict.fromkeys(frozen))) <= aside


def test_every_name_of_ours_has_one_name_there(stage1_settings: dict[str, Any]) -> None:
    model = Blip2DualQformer.from_config(stage1_settings)
    ours = dict.fromkeys(model.trainable_state_dict())
    renamed = from_ours(ours, "authors")
    assert len(renamed) == len(ours)
    assert {name for name in renamed if name.startswith("sam_")} >= {
        f"sam_Qformer.{QFORMER}",
        "sam_query_tokens",
        "sam_temp",
    }
    assert to_ours(renamed).keys() == ours.keys()


def test_every_part_is_in_the_table_once() -> None:
    assert len(set(PARTS.values())) == len(PARTS)
    for part, theirs in PARTS.items():
        name = f"branches.clip.{part}" + ("weight" if part.endswith(".") else "")
        there = theirs + ("weight" if part.endswith(".") else "")
        assert from_ours({name: 1}, "blip2") == {there: 1}
        assert to_ours({f"Qformer.{QFORMER}": 0, there: 1})[name] == 1


@pytest.mark.parametrize(
    ("names", "kind", "arch", "branches"),
    [
        (["branches.clip.query_tokens", "branches.sam.llm_proj.bias"], "ours", "msmedcap", None),
        ([f"Qformer.{QFORMER}", "query_tokens", "opt_proj.bias"], "blip2", "msmedcap", ["clip"]),
        # the authors' stage 1, and the one of their earlier version
        ([f"sam_Qformer.{QFORMER}", "sam_query_tokens", "itm_head.bias"], "authors", "1", ["sam"]),
        ([f"sam_Qformer.{QFORMER}", "query_tokens", "itm_head.bias"], "authors", "1", ["sam"]),
        # their merge of BLIP-2 and stage 1, and their stage 2
        (
            [f"Qformer.{QFORMER}", "query_tokens", "temp", "itm_head.bias", "sam_query_tokens"],
            "authors",
            "1",
            ["clip", "sam"],
        ),
        (
            [f"Qformer.{QFORMER}", "sam_query_tokens", "opt_proj.bias", "sam_opt_proj.bias"],
            "authors",
            "msmedcap",
            ["clip", "sam"],
        ),
    ],
)
def test_kinds_are_told_by_names(
    names: list[str], kind: str, arch: str, branches: list[str] | None
) -> None:
    renamed = to_ours(dict.fromkeys(names))
    assert kind_of(names) == kind
    assert arch_of(renamed) == {"1": "blip2_dual_qformer"}.get(arch, arch)
    assert branches_of(renamed) == (branches or ["clip", "sam"])
    assert all(name.startswith("branches.") for name in renamed)


def test_plain_heads_belong_to_clip_where_there_is_one() -> None:
    names = [f"Qformer.{QFORMER}", f"sam_Qformer.{QFORMER}", "sam_query_tokens", "temp"]
    assert "branches.clip.temp" in to_ours(dict.fromkeys(names))
    assert "branches.sam.temp" in to_ours(dict.fromkeys(names[1:]))
    assert kind_of(["bert.pooler.dense.weight"]) is None


def test_two_names_of_one_tensor_are_an_error() -> None:
    with pytest.raises(WeightsError, match=r"two names of the file mean branches\.sam\.query_tok"):
        to_ours(dict.fromkeys(["sam_query_tokens", "query_tokens"]))


def test_blip2_cannot_hold_two_branches_or_an_encoder_of_sam() -> None:
    both = dict.fromkeys(["branches.clip.temp", "branches.sam.temp"])
    with pytest.raises(WeightsError, match="--branch clip or --branch sam"):
        from_ours(both, "blip2")
    with pytest.raises(WeightsError, match="has no name"):
        from_ours({"branches.sam.encoder.vit.pos_embed": 0}, "blip2")
    with pytest.raises(WeightsError, match=r"branches\.clip\.adapter has no name"):
        from_ours({"branches.clip.adapter": 0}, "authors")


def test_second_names_must_agree_and_may_stand_alone() -> None:
    alias, first = next(iter(ALIASES.items()))
    head, words = f"branches.sam.{alias}", f"branches.sam.{first}"
    one = torch.ones(3, 2)
    assert settle_aliases({head: one, words: one.clone()}, "f").keys() == {words}
    assert torch.equal(settle_aliases({head: one}, "f")[words], one)
    broken = torch.full((3, 2), float("nan"))
    assert settle_aliases({head: broken.clone(), words: broken}, "f").keys() == {words}
    with pytest.raises(WeightsError, match=r"f\.pth: .* differ"):
        settle_aliases({head: one, words: one * 2}, "f.pth")
    assert with_aliases({words: one}) == {words: one, head: one}
