"""Device and mixed precision of a run."""

from __future__ import annotations

import contextlib
import logging
import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.precision import has_units

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: str) -> torch.device:
    """Turns ``run.device`` into a device, on torchrun the one of this process.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``.

    Raises:
        ConfigError: If it is unknown or not there.
    """
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ConfigError([_device_problem(wanted, "is not a device")]) from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError([_device_problem(wanted, "is not supported")])
    if device.type == "cpu":
        if ":" in wanted:
            raise ConfigError([_device_problem(wanted, "has a number, but there is one CPU")])
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError([_device_problem(wanted, "was asked for, but torch sees no CUDA device")])
    # `cuda` alone means the device of this process
    index = device.index if ":" in wanted else int(os.environ.get("LOCAL_RANK", "0"))
    if index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError([_device_problem(f"cuda:{index}", f"is not there; torch sees {count}")])
    return torch.device("cuda", index)


def _device_problem(value: str, what: str) -> str:
    return f"run.device {value!r} {what}; use auto (CUDA where there is one), cpu or cuda"


def make_scaler(device: torch.device) -> Any:
    """Makes the loss scaler of fp16; None where torch has none for a device (CPU before 2.3)."""
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type)
    return torch.cuda.amp.GradScaler() if device.type == "cuda" else None


class Precision:
    """Autocast for forward passes, and loss scaling where fp16 needs it.

    Args:
        amp: ``off``, ``bf16`` or ``fp16``. Where torch has no loss scaling, without which fp16
            gradients vanish, fp16 is switched off with a warning: on a CPU before torch 2.3.
        device: Device of the model.
    """

    def __init__(self, amp: str, device: torch.device) -> None:
        self.scaler = make_scaler(device) if amp == "fp16" else None
        if amp == "fp16" and self.scaler is None:
            logger.warning(
                "run.amp is fp16, which torch %s scales on CUDA only: this run on %s uses fp32",
                torch.__version__,
                device,
            )
            amp = "off"
        elif amp == "fp16" and device.type == "cpu" and not has_units(torch.float16):
            logger.warning(
                "run.amp is fp16, which this CPU does not compute in hardware: expect it to be "
                "much slower than run.amp=off"
            )
        self.amp = amp
        self.device = device

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the context that forward passes run in."""
        if self.amp == "off":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.amp])

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss, scaled in fp16."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        loss.backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divides the gradients by the scale, so that their norm can be measured and clipped."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Updates the parameters; in fp16 an overflowing update is left out and the scale halved.

        Returns:
            Whether they were updated.
        """
        if self.scaler is None:
            optimizer.step()
            return True
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        after = self.scaler.get_scale()
        if after >= before:
            return True
        logger.info("fp16 overflow: no update, the loss is scaled by %g from now on", after)
        return False
