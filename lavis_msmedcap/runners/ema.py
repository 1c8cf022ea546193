"""An average of the weights over the training, which is often better than the last weights.

Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging"; the
exponential form with its short memory at the start is that of TensorFlow's
``ExponentialMovingAverage``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from lavis_msmedcap.models.weights import trainable_parameters


class WeightAverage:
    """Exponential moving average of the trainable parameters of a model.

    After ``n`` updates of the parameters the average forgets at ``(1 + n) / (10 + n)``, at most at
    ``decay``, so that it does not hold on to the weights that the training started from.

    Args:
        model: Model without a DDP wrapper, on its device.
        decay: Share of the old average in the new one, between 0 and 1.

    Attributes:
        decay: As given.
        values: The average by name of the parameter, float32, on the parameter's device.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = trainable_parameters(model)
        self.values: dict[str, Tensor] = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Takes the parameters in.

        Args:
            updates: How often they have been updated in all.
        """
        decay = min(self.decay, (1 + updates) / (10 + updates))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter.float(), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Puts the average in the place of the parameters for the length of a ``with`` block."""
        kept = {name: p.detach().clone() for name, p in self._parameters.items()}
        try:
            self._put(self.values)
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])

    def metadata(self) -> dict[str, str]:
        """Returns what a checkpoint of the average says of itself."""
        return {"weights": "exponential moving average", "ema_decay": repr(self.decay)}


def averaged(average: WeightAverage | None) -> AbstractContextManager[None]:
    """Returns the context in which a model has its averaged weights, where an average is kept."""
    return contextlib.nullcontext() if average is None else average.in_place()
