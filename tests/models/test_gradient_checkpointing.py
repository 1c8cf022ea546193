"""Gradient checkpointing changes memory and nothing else: losses and gradients to the bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from saved_memory import saved_bytes
from tiny_models import TEXTS
from torch import Tensor, nn

from lavis_msmedcap.models.base import DualBranchModel
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.gradient_checkpointing import checkpoint_layers, decoder_layers
from lavis_msmedcap.models.msmedcap import MSMedCap


def step(
    cls: type[DualBranchModel], settings: dict[str, Any], images: Tensor
) -> tuple[dict[str, Any], dict[str, Tensor], int]:
    """Returns losses, gradients and saved bytes of one training step from fixed seeds."""
    torch.manual_seed(1)
    model = cls.from_config(settings).train()
    torch.manual_seed(2)
    output, count = saved_bytes(model, {"image": images, "text_input": TEXTS})
    output["loss"].backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    after = torch.rand(1)
    return {**output["logs"], "generator": after}, gradients, count


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert first
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_stage_1_step_is_the_same_to_the_bit_with_less_memory(
    stage1_settings: dict[str, Any], packed_images: Tensor, dropout: float
) -> None:
    stage1_settings["qformer"].update(dropout=dropout, num_layers=4)
    plain = step(Blip2DualQformer, stage1_settings, packed_images)
    stage1_settings["qformer"]["gradient_checkpointing"] = True
    saving = step(Blip2DualQformer, stage1_settings, packed_images)
    assert {name.partition("/")[2] for name in plain[0]} >= {"loss_itc", "loss_itm", "loss_lm"}
    assert_same(plain[0], saving[0])
    assert_same(plain[1], saving[1])
    assert saving[2] < 0.2 * plain[2]


@pytest.mark.parametrize("parts", [("llm",), ("qformer",), ("llm", "qformer")])
def test_stage_2_step_is_the_same_to_the_bit_with_less_memory(
    stage2_settings: dict[str, Any], packed_images: Tensor, parts: tuple[str, ...]
) -> None:
    stage2_settings["qformer"].update(dropout=0.3, num_layers=6)
    plain = step(MSMedCap, copy.deepcopy(stage2_settings), packed_images)
    for part in parts:
        stage2_settings[part]["gradient_checkpointing"] = True
    saving = step(MSMedCap, stage2_settings, packed_images)
    assert_same(plain[0], saving[0])
    assert_same(plain[1], saving[1])
    assert saving[2] < 0.8 * plain[2]


def test_captions_stay_the_same(stage2_settings: dict[str, Any], packed_images: Tensor) -> None:
    captions = []
    for checkpointing in (False, True):
        for part in ("llm", "qformer"):
            stage2_settings[part]["gradient_checkpointing"] = checkpointing
        torch.manual_seed(1)
        model = MSMedCap.from_config(stage2_settings).eval()
        samples = {"image": packed_images, "prompt": TEXTS}
        captions.append(model.generate(samples, num_beams=3, max_length=8))
    assert captions[0] == captions[1]
    assert len(set(captions[0])) > 1


class TestLayers:
    def test_a_copy_computes_with_its_own_weights(self) -> None:
        layer = nn.Linear(2, 2)
        checkpoint_layers([layer])
        twin = copy.deepcopy(layer)
        with torch.no_grad():
            twin.weight.zero_()
            twin.bias.zero_()
        assert twin(torch.ones(1, 2, requires_grad=True)).tolist() == [[0.0, 0.0]]
        assert layer(torch.ones(1, 2)).any()

    def test_a_network_without_a_list_of_blocks(self) -> None:
        model = nn.Sequential(nn.Linear(1, 1))
        model.config = type("Config", (), {"num_hidden_layers": 3})
        with pytest.raises(ValueError, match="gradient_checkpointing=false"):
            decoder_layers(model)
