"""LoRA on the LLM: what trains, what stays, what is in a checkpoint."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TEXTS, train_steps
from torch import Tensor

from lavis_msmedcap import cli
from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.memory.shapes import read_shape
from lavis_msmedcap.models import lora as lora_module
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.models.lora import MARK, LoraError
from lavis_msmedcap.models.msmedcap import MSMedCap

LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.2, "target_modules": ["q_proj", "v_proj"]}
needs_peft = pytest.mark.skipif(
    lora_module.package_problem() is not None, reason="no peft that fits transformers"
)


def build(settings: dict[str, Any], lora: dict[str, Any] | None, **more: Any) -> MSMedCap:
    torch.manual_seed(1)
    return MSMedCap.from_config({**settings, "llm": {**settings["llm"], "lora": lora}, **more})


@needs_peft
class TestTraining:
    def test_starts_as_the_model_without_it(
        self, stage2_settings: dict[str, Any], packed_images: Tensor
    ) -> None:
        samples = {"image": packed_images, "text_input": TEXTS}
        plain, added = build(stage2_settings, None).eval(), build(stage2_settings, LORA).eval()
        added.branches.load_state_dict(plain.branches.state_dict())
        assert torch.equal(plain(samples)["loss"], added(samples)["loss"])

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_lora_trains_and_the_base_stays_bit_for_bit(
        self,
        stage2_settings: dict[str, Any],
        packed_images: Tensor,
        precision: str,
        checkpointing: bool,
    ) -> None:
        stage2_settings["llm"].update(precision=precision, gradient_checkpointing=checkpointing)
        model = build(stage2_settings, LORA)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses = train_steps(model, {"image": packed_images, "text_input": TEXTS}, 6)
        assert losses[-1] < losses[0]
        llm = {n: p for n, p in model.named_parameters() if n.startswith("opt_model.")}
        added = {name for name in llm if MARK in name}
        assert len(added) == 2 * 2 * 2  # layers, targets, A and B
        assert {name for name, p in llm.items() if p.requires_grad} == added
        assert {llm[name].dtype for name in added} == {torch.float32}
        assert {name for name in llm if not torch.equal(llm[name], before[name])} == added

    def test_only_its_dropout_follows_the_mode(self, stage2_settings: dict[str, Any]) -> None:
        model = build(stage2_settings, LORA).train()
        training = [type(part).__name__ for part in model.opt_model.modules() if part.training]
        assert "Dropout" in training
        assert set(training) <= {"Dropout", "ModuleDict"}
        assert not any(part.training for part in model.eval().opt_model.modules())

    def test_batch_alone_and_together(
        self, stage2_settings: dict[str, Any], packed_images: Tensor
    ) -> None:
        model = build(stage2_settings, LORA)
        before = model.eval().generate({"image": packed_images, "prompt": TEXTS}, max_length=8)
        train_steps(model, {"image": packed_images, "text_input": TEXTS}, 6)
        model.eval()
        together = model.generate({"image": packed_images, "prompt": TEXTS}, max_length=8)
        alone = [
            model.generate({"image": packed_images[i : i + 1], "prompt": TEXTS[i]}, max_length=8)[0]
            for i in range(5)
        ]
        assert together == alone
        assert together != before

    def test_audit_counts_it_only_where_yaml_asks_for_it(
        self, stage2_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            model = build(stage2_settings, LORA)
        assert "leaves the paper's rule" in caplog.text
        count = model.audit_trainable()["llm.lora"]
        assert count == 2 * 2 * 2 * (24 + 24)  # layers, targets, rank
        shape = read_shape({**stage2_settings, "llm": {**stage2_settings["llm"], "lora": LORA}})
        assert shape.llm.lora == count
        assert "llm.lora" in model.describe_trainable()
        model.settings["llm"]["lora"] = None
        with pytest.raises(WeightsError, match="is trainable"):
            model.audit_trainable()


@needs_peft
class TestCheckpoints:
    def test_round_trip(
        self, stage2_settings: dict[str, Any], packed_images: Tensor, tmp_path: Path
    ) -> None:
        model = build(stage2_settings, LORA)
        train_steps(model, {"image": packed_images, "text_input": TEXTS}, 3)
        file = tmp_path / "checkpoint.safetensors"
        save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())
        state, _ = read_checkpoint(file)
        llm = [name for name in state if name.startswith("opt_model.")]
        assert len(llm) == 8
        assert all(MARK in name for name in llm)
        twin = build(stage2_settings, LORA, load_finetuned=True, finetuned=str(file)).eval()
        samples = {"image": packed_images, "text_input": TEXTS}
        assert torch.equal(twin(samples)["loss"], model.eval()(samples)["loss"])
        with pytest.raises(ConfigError, match=r"model\.llm\.lora.*but it is null here"):
            build(stage2_settings, None, load_finetuned=True, finetuned=str(file))

    def test_starts_from_stage_1(
        self, stage1_settings: dict[str, Any], stage2_settings: dict[str, Any], tmp_path: Path
    ) -> None:
        model = Blip2DualQformer.from_config(stage1_settings)
        file = tmp_path / "stage1.safetensors"
        save_checkpoint(file, model.trainable_state_dict(), model.checkpoint_metadata())
        captioner = build(stage2_settings, LORA, stage1=str(file))
        assert torch.equal(captioner.query_tokens, model.query_tokens)


@needs_peft
def test_a_target_that_is_not_there(stage2_settings: dict[str, Any]) -> None:
    with pytest.raises(LoraError, match=r"has c_attn, which .* do not have; .*q_proj"):
        build(stage2_settings, {**LORA, "target_modules": ["q_proj", "c_attn"]})


class TestWithoutThePackage:
    @pytest.fixture(autouse=True)
    def without_peft(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)

    def test_building(self, stage2_settings: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=r"pip install 'lavis-msmedcap\[lora\]'"):
            build(stage2_settings, LORA)

    def test_checks(self, capsys: pytest.CaptureFixture[str]) -> None:
        lora = "model.llm.lora={rank: 4, alpha: 8, target_modules: [q_proj]}"
        arguments = ["config", "projects/msmedcap/caption.yaml", "--options", lora]
        assert cli.main([*arguments, "model.stage1=null"]) == 2
        message = capsys.readouterr().err
        assert "1 problem" in message
        assert "model.llm.lora: LoRA needs a peft that fits transformers 4.26" in message
