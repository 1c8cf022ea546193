"""Quantised LLM: what is replaced, what it computes, and what is said where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llms import FAMILIES, write_model
from tiny_models import TEXTS
from torch import Tensor, nn

from lavis_msmedcap import cli
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.encoders.freeze import is_frozen
from lavis_msmedcap.models.gradient_checkpointing import decoder_layers
from lavis_msmedcap.models.llm import load_llm
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.models.quantization import QUANTIZATIONS, device_problem, quantize_llm

CPU = torch.device("cpu")


@pytest.fixture
def without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)


@pytest.fixture
def working_package() -> None:
    """Skips where bitsandbytes is not installed or does not compute on this CPU."""
    pytest.importorskip("bitsandbytes")
    problems = [device_problem(kind, CPU) for kind in QUANTIZATIONS]
    if any(problems):
        pytest.skip(str(problems))


def build(settings: dict[str, Any], quantization: str | None) -> MSMedCap:
    torch.manual_seed(1)
    llm = {**settings["llm"], "quantization": quantization}
    return MSMedCap.from_config({**settings, "llm": llm})


@pytest.mark.usefixtures("without_bitsandbytes")
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
class TestWithoutThePackage:
    def test_building(self, stage2_settings: dict[str, Any], quantization: str) -> None:
        with pytest.raises(ConfigError, match=r"pip install 'lavis-msmedcap\[quant\]'") as caught:
            build(stage2_settings, quantization)
        assert len(caught.value.problems) == 1

    def test_checks(self, quantization: str, capsys: pytest.CaptureFixture[str]) -> None:
        options = [f"model.llm.quantization={quantization}", "model.stage1=null"]
        arguments = ["config", "projects/msmedcap/caption.yaml", "--options", *options]
        assert cli.main(arguments) == 2
        message = capsys.readouterr().err
        assert "1 problem" in message
        assert f"model.llm.quantization is {quantization}: quantisation needs" in message
        assert "set model.llm.quantization=null" in message


def test_a_device_that_it_does_not_support(
    capsys: pytest.CaptureFixture[str], fake_package: Any
) -> None:
    options = ["run.device=cpu", "model.llm.quantization=nf4", "model.stage1=null"]
    arguments = ["config", "projects/msmedcap/caption.yaml", "--options", *options]
    assert cli.main(arguments) == 2
    message = capsys.readouterr().err
    assert (
        "bitsandbytes 0.1 cannot compute nf4 on cpu (needs a GPU); use run.device=cuda" in message
    )


@pytest.fixture
def fake_package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bitsandbytes that computes on CUDA only, as all of them once did."""

    class Layer(nn.Linear):
        def __init__(self, width_in: int, width_out: int, bias: bool, **_: Any) -> None:
            super().__init__(width_in, width_out, bias)

        def to(self, *_: Any) -> Any:
            raise RuntimeError("needs a GPU")

    package = type(sys)("bitsandbytes")
    package.__version__ = "0.1"
    package.nn = type(sys)("bitsandbytes.nn")
    package.nn.Linear4bit = Layer
    package.nn.Params4bit = lambda data, **_: nn.Parameter(data, requires_grad=False)
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    return package


@pytest.mark.usefixtures("working_package")
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
class TestOnThisCpu:
    def test_linear_layers_of_the_blocks_are_replaced_and_no_others(
        self, stage2_settings: dict[str, Any], quantization: str
    ) -> None:
        model = build(stage2_settings, quantization)
        blocks = decoder_layers(model.opt_model)
        kinds = {type(part).__name__ for part in blocks.modules()}
        assert "Linear" not in kinds
        assert {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[quantization] in kinds
        stored = {"nf4": torch.uint8, "int8": torch.int8}[quantization]
        assert blocks[0].fc1.weight.dtype == stored
        assert type(model.opt_model.lm_head) is nn.Linear
        assert model.opt_model.lm_head.weight is model.opt_model.get_input_embeddings().weight
        assert is_frozen(model.opt_model)
        parts = {"qformer", "query_tokens", "llm_proj"}
        assert {key.split(".")[1] for key in model.audit_trainable()} == parts

    def test_loss_is_near_and_the_gradient_reaches_the_prefix(
        self,
        stage2_settings: dict[str, Any],
        packed_images: Tensor,
        quantization: str,
    ) -> None:
        samples = {"image": packed_images, "text_input": TEXTS}
        plain = build(stage2_settings, None).eval()(samples)["loss"].item()
        for checkpointing in (False, True):
            stage2_settings["llm"]["gradient_checkpointing"] = checkpointing
            model = build(stage2_settings, quantization).eval()
            before = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
            loss = model(samples)["loss"]
            assert loss.item() != plain
            assert loss.item() == pytest.approx(plain, rel=0.2)
            loss.backward()
            assert model.query_tokens.grad.abs().sum() > 0
            after = dict(model.named_parameters())
            assert all(torch.equal(after[name], value) for name, value in before.items())
        assert len(model.generate({"image": packed_images}, max_length=4)) == 5

    def test_the_transposed_layers_of_gpt2(self, tmp_path: Path, quantization: str) -> None:
        folder = write_model(tmp_path / "gpt2", "gpt2", **{**FAMILIES["gpt2"], "n_embd": 64})
        llm, _ = load_llm(folder, folder)
        ids = torch.arange(10)[None]
        logits = llm(ids).logits
        quantize_llm(llm, quantization)
        assert not any(type(m).__name__ == "Conv1D" for m in decoder_layers(llm).modules())
        error = (llm(ids).logits - logits).norm() / logits.norm()
        assert 0 < error < {"int8": 0.1, "nf4": 0.5}[quantization]
