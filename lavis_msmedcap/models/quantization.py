"""Weights of the frozen language model in 8 or 4 bits, by bitsandbytes (an optional extra).

Sources: Dettmers et al., "LLM.int8()" (int8) and "QLoRA" (NF4).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.models.encoders.freeze import freeze
from lavis_msmedcap.models.gradient_checkpointing import decoder_layers

QUANTIZATIONS = ("int8", "nf4")
OUTLIER_THRESHOLD = 6.0  # LLM.int8(): features beyond it stay in 16 bits
OFF = "set model.llm.quantization=null"


class QuantizationError(MSMedCapError, RuntimeError):
    """A quantisation that this installation or device cannot compute."""


def quantize_llm(llm: Any, quantization: str) -> None:
    """Replaces the linear layers of a frozen LLM's blocks; embeddings and output layer stay.

    bitsandbytes converts the weights when they are moved to a device. Where there is no CUDA, that
    is done at once.

    Args:
        llm: Frozen language model on the CPU, weights loaded.
        quantization: ``int8`` or ``nf4``.

    Raises:
        QuantizationError: If bitsandbytes is missing or cannot be imported.
    """
    package = _import_bitsandbytes()
    for parent in decoder_layers(llm).modules():
        for name, layer in list(parent.named_children()):
            weight = _weight_of(layer)
            if weight is not None:
                setattr(parent, name, _quantized(package, weight, layer.bias, quantization))
    if not torch.cuda.is_available():
        llm.to("cpu")


def package_problem() -> str | None:
    """Says why bitsandbytes cannot be imported, with the cure; None if it can."""
    try:
        _import_bitsandbytes()
    except QuantizationError as error:
        return str(error)
    return None


def device_problem(quantization: str, device: torch.device) -> str | None:
    """Tries a small layer on a device.

    Returns:
        What failed and the cure, or None; None also where bitsandbytes is missing, which
        `package_problem` tells.
    """
    if package_problem() is not None:
        return None
    package = _import_bitsandbytes()
    try:
        layer = _quantized(package, torch.eye(64), None, quantization).to(device)
        values = torch.ones(2, 64, device=device, requires_grad=True)
        layer(values).sum().backward()
    except (RuntimeError, AttributeError, NotImplementedError, AssertionError, OSError) as error:
        return (
            f"bitsandbytes {package.__version__} cannot compute {quantization} on "
            f"{device.type} ({error}); use run.device=cuda, or {OFF}"
        )
    return None


def _import_bitsandbytes() -> ModuleType:
    try:
        import bitsandbytes
    except ImportError as error:
        raise QuantizationError(
            f"quantisation needs bitsandbytes ({error}); pip install 'lavis-msmedcap[quant]', or "
            f"{OFF}"
        ) from error
    package: ModuleType = bitsandbytes
    return package


def _weight_of(layer: nn.Module) -> Tensor | None:
    """Returns the weight (out, in) of a linear layer, None for any other layer."""
    if type(layer) is nn.Linear:
        return layer.weight
    if type(layer).__name__ == "Conv1D" and isinstance(layer.weight, Tensor):
        return layer.weight.t().contiguous()  # GPT-2's linear layer has it transposed
    return None


def _quantized(package: ModuleType, weight: Tensor, bias: Any, quantization: str) -> nn.Module:
    """Makes the layer that takes a linear layer's place; it computes in the weight's type."""
    width_out, width_in = weight.shape
    layer: Any
    if quantization == "nf4":
        layer = package.nn.Linear4bit(
            width_in, width_out, bias is not None, compute_dtype=weight.dtype, quant_type="nf4"
        )
        layer.weight = package.nn.Params4bit(weight.data, requires_grad=False, quant_type="nf4")
    else:
        layer = package.nn.Linear8bitLt(
            width_in,
            width_out,
            bias is not None,
            has_fp16_weights=False,
            threshold=OUTLIER_THRESHOLD,
        )
        layer.weight = package.nn.Int8Params(
            weight.data, requires_grad=False, has_fp16_weights=False
        )
    layer.bias = None if bias is None else nn.Parameter(bias.data, requires_grad=False)
    frozen: nn.Module = freeze(layer)
    return frozen
