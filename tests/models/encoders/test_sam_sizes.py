from __future__ import annotations

from typing import Any

import pytest
import torch
from segment_anything import sam_model_registry

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.encoders.sam import SamEncoder
from lavis_msmedcap.models.encoders.sam_sizes import SAM_SIZES, fill_size, size_conflict

SMALL = {"image_size": 32, "patch_size": 8, "window_size": 2, "out_chans": 8}


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("size", SAM_SIZES)
def test_named_sizes_equal_segment_anything(size: str) -> None:
    with torch.device("meta"):
        theirs = sam_model_registry[size]().image_encoder
        ours = SamEncoder(**fill_size({"size": size}))
    assert shapes(ours.vit) == shapes(theirs)
    windows = [block.window_size for block in ours.vit.blocks]
    assert windows == [block.window_size for block in theirs.blocks]
    assert [b.attn.num_heads for b in ours.vit.blocks] == [b.attn.num_heads for b in theirs.blocks]


def test_a_key_that_says_the_same_is_no_conflict() -> None:
    settings = {"size": "vit_l", "width": 1024, "global_attn_indexes": [5, 11, 17, 23], "pool": 4}
    assert size_conflict(settings) is None
    assert fill_size(settings) == {"pool": 4, **SAM_SIZES["vit_l"]}
    assert fill_size({"size": None, "width": 8}) == {"width": 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"size": "vit_l", "width": 768},
            r"size is vit_l \(width 1024\), but width is 768 beside it",
        ),
        (
            {"size": "vit_b", "global_attn_indexes": [1]},
            r"\(global_attn_indexes \[2, 5, 8, 11\]\), but global_attn_indexes is \[1\]",
        ),
        ({"size": "vit_x"}, "expected one of vit_b, vit_l, vit_h"),
    ],
)
def test_conflicts_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill_size(settings)


def test_a_file_of_another_size_is_named() -> None:
    with torch.device("meta"):
        large = SamEncoder(**fill_size({"size": "vit_l"})).state_dict()
        with pytest.raises(WeightsError) as caught:
            build_encoder("sam", {"size": "vit_b"}, large, "sam_vit_l_0b3195.pth")
    message = str(caught.value)
    assert "sam_vit_l_0b3195.pth holds a SAM encoder of size vit_l (width 1024, depth 24" in message
    assert "the configuration says one of size vit_b (width 768" in message
    assert "set model.branches.sam.encoder.size to vit_l" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("other", [{"width": 16}, {"depth": 1}, {"num_heads": 4}])
def test_a_file_without_a_named_size_gives_its_numbers(other: dict[str, int]) -> None:
    tiny = {"width": 24, "depth": 2, "num_heads": 2, "global_attn_indexes": (0,), **SMALL}
    file = SamEncoder(**{**tiny, **other}).state_dict()
    with pytest.raises(
        WeightsError, match=r"set model\.branches\.sam\.encoder\.width, depth"
    ) as caught:
        build_encoder("sam", tiny, file, "small.pth")
    (key,) = other
    assert {"width": "width 16", "depth": "depth 1", "num_heads": "4 heads"}[key] in str(caught)
