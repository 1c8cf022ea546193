"""One epoch of training: forward, backward, clip, step, and the checks in between.

A window is the group of batches that make one optimizer step (``accum_grad_iters`` of them, fewer
at the end of an epoch). Its gradient is that of the mean of its batches' losses. Where the model
tells a ``weight`` for each batch, the mean is weighted: in stage 2 that is the number of caption
tokens, and the step is that of one large batch. In stage 1 batches count alike, and the step is not
that of a large batch, because ITC and ITM compare samples within a batch only.

The device is waited for once per window, to learn whether the losses and the gradient are finite
before they touch a parameter.

Every step updates the parameters, except where fp16 overflows. Data plan, seeds, logs and states go
by steps; the learning rate and the average of the weights go by updates (as the learning rate of
Hugging Face's Trainer does): a warm-up that overflows would else be shorter than was asked for.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lavis_msmedcap.common.distributed import (
    gather_objects,
    get_rank,
    get_world_size,
    sum_over_ranks,
)
from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.datasets.random_streams import seed_generators
from lavis_msmedcap.runners.ema import WeightAverage
from lavis_msmedcap.runners.loss_meter import LossMeter, Sums
from lavis_msmedcap.runners.nonfinite import BatchNote, note_batch, raise_nonfinite
from lavis_msmedcap.runners.optimization import clip_gradients, scale_gradients
from lavis_msmedcap.runners.precision import Precision
from lavis_msmedcap.runners.schedule import LRSchedule
from lavis_msmedcap.runners.training_state import Progress
from lavis_msmedcap.runners.worker_errors import Ahead

# overflowing fp16 steps in a row; by then the scale of 65536 has been halved to nothing
FP16_PATIENCE = 30

# batches of the next step that are held in memory to know that it can be done
LOOK_AHEAD = 4

# what a process wants after a step (FAIL: its next batch cannot be read); the largest one counts
WISHES = CONTINUE, SAVE, STOP, FAIL = range(4)

Samples = dict[str, Any]
TrainStep = Callable[[nn.Module, Samples], Mapping[str, Any]]


class BatchSource(Sized, Iterable[Samples], Protocol):
    """Batches of one epoch, of a known number."""


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did.

    Attributes:
        epoch: Counted from 0.
        step: Optimizer steps of the run so far, this one included.
        lr: Learning rate.
        grad_norm: L2 norm of the gradient before clipping.
        loss: Mean loss of all processes, over the batches of the step.
        images: Images of all processes.
        seconds: Duration, loading included.
        waited: Seconds of it in which batches were waited for.
    """

    epoch: int
    step: int
    lr: float
    grad_norm: float
    loss: float
    images: int
    seconds: float
    waited: float = 0.0


class StateKeeper(Protocol):
    """Decides when the state of the training is written, and writes it."""

    def wish(self) -> int:
        """Returns what this process wants after the step: CONTINUE, SAVE or STOP."""

    def save(self, progress: Progress) -> None:
        """Writes the state; called on every rank."""

    def stop(self) -> None:
        """Leaves the training by raising; called on every rank."""


class StepListener(Protocol):
    """Hears of every step, and of the mean losses at every log step."""

    def on_step(self, report: StepReport) -> None:
        """Called after each optimizer step, on every rank."""

    def on_log(self, report: StepReport, sums: Sums) -> None:
        """Called every ``log_freq`` steps and at the end of an epoch, on every rank."""


class TrainingLoop:
    """Trains a model epoch by epoch.

    Args:
        model: Model, or its DDP wrapper.
        train_step: ``(model, samples) -> output`` with ``loss``, and where there are any ``logs``,
            ``per_sample`` and ``weight`` (the same on all ranks).
        optimizer: Optimizer over the trainable parameters.
        schedule: Sets the learning rate of each step.
        precision: Autocast and loss scaling.
        listener: Hears of steps.
        accumulate: Batches per optimizer step.
        clip_grad_norm: Largest gradient norm, or None.
        log_freq: Steps between two logs.
        seed: With the step and the rank it seeds the random generators of every step.
        keeper: Writes the state in the middle of an epoch, or nobody does.
        average: Takes the parameters in after each update, or there is none.

    Attributes:
        global_step: Optimizer steps done.
        images_seen: Images of all processes.
        skipped: fp16 steps without an update.
        stopping: Whether some process has been asked to stop; the same on every rank.
    """

    def __init__(
        self,
        model: nn.Module,
        train_step: TrainStep,
        optimizer: torch.optim.Optimizer,
        schedule: LRSchedule,
        precision: Precision,
        listener: StepListener,
        *,
        accumulate: int = 1,
        clip_grad_norm: float | None = None,
        log_freq: int = 50,
        seed: int = 0,
        keeper: StateKeeper | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        self.model = model
        self.train_step = train_step
        self.optimizer = optimizer
        self.schedule = schedule
        self.precision = precision
        self.listener = listener
        self.accumulate = accumulate
        self.clip_grad_norm = clip_grad_norm
        self.log_freq = log_freq
        self.seed = seed
        self.keeper = keeper
        self.average = average
        self.global_step = 0
        self.images_seen = 0
        self.skipped = 0
        self.stopping = False
        self._overflows = 0
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._meter = LossMeter()

    def go_on_from(self, progress: Progress) -> None:
        """Takes the counters of an interrupted training."""
        self.global_step, self.images_seen = progress.step, progress.images_seen
        self._overflows, self.skipped = progress.overflows, progress.skipped
        if self.precision.scaler is not None and progress.scaler:
            self.precision.scaler.load_state_dict(progress.scaler)

    def progress(self, epoch: int, batch: int = 0, totals: Sums | None = None) -> Progress:
        """Returns how far the training has come.

        Args:
            epoch: Epoch of the next batch.
            batch: Batches of it that are done.
            totals: Its loss sums so far.
        """
        scaler = self.precision.scaler
        return Progress(
            epoch=epoch,
            batch=batch,
            step=self.global_step,
            images_seen=self.images_seen,
            totals={} if totals is None else dict(totals.totals),
            scaler={} if scaler is None else scaler.state_dict(),
            overflows=self._overflows,
            skipped=self.skipped,
        )

    def run_epoch(
        self, batches: BatchSource, epoch: int, done: int = 0, totals: Sums | None = None
    ) -> Sums:
        """Trains on the batches of an epoch.

        Args:
            batches: Those of this process that are left.
            epoch: Counted from 0.
            done: Batches that were done before an interruption.
            totals: Loss sums over these.

        Returns:
            Loss sums of the epoch over all ranks.

        Raises:
            NonFiniteError: If a loss or the gradient is nan or infinite; no parameter has been
                touched by the step that found it.
            MSMedCapError: If a batch cannot be read. On all ranks, and after the state before its
                step has been written, if it is one of the first `LOOK_AHEAD` of its step.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self._meter = LossMeter()
        total, count = Sums(), done + len(batches)
        total.add(Sums() if totals is None else totals)
        window: list[BatchNote] = []
        started = asked = time.perf_counter()
        waited = 0.0
        source = Ahead(batches)
        ahead = min(self.accumulate, LOOK_AHEAD)
        source.look(ahead)
        raise_together(source.error)
        for index, samples in enumerate(source, done):
            waited += time.perf_counter() - asked
            # the last window of an epoch may be short: it divides by its own length
            size = min(self.accumulate, count - (index - len(window)))
            seed_generators(self.seed, "step", self.global_step, len(window), get_rank())
            samples = to_device(samples, self.precision.device)
            samples.update(epoch=epoch, num_iters_per_epoch=count, iters=index)
            window.append(self._forward_backward(samples, window, size))
            if len(window) < size:
                asked = time.perf_counter()
                continue
            asked = time.perf_counter()
            # whether the next step can be done is agreed on at the end of this one
            source.look(ahead)
            waited += time.perf_counter() - asked
            failing = CONTINUE if source.error is None else FAIL
            report, wish = self._close_window(window, epoch, started, waited, failing)
            started, waited, window = time.perf_counter(), 0.0, []
            self.listener.on_step(report)
            ends, self.stopping = index + 1 == count, wish == STOP
            if report.step % self.log_freq == 0 or ends or wish:
                sums = self._meter.read()
                total.add(sums)
                self.listener.on_log(report, sums)
            if wish and self.keeper is not None and not ends:  # the end of an epoch saves anyway
                self.keeper.save(self.progress(epoch, index + 1, total))
                if wish == FAIL:
                    raise_together(source.error)
                if self.stopping:
                    self.keeper.stop()
            asked = time.perf_counter()
        if source.error is not None:
            if self.keeper is not None and get_world_size() == 1:
                self.keeper.save(self.progress(epoch, index + 1 - len(window), total))
            raise source.error
        return total

    def _forward_backward(self, samples: Samples, before: list[BatchNote], size: int) -> BatchNote:
        """Adds the gradients of a batch that follows others of its window of ``size``."""
        with self._gradient_sync(closes=len(before) + 1 == size):
            with self.precision.autocast():
                output = self.train_step(self.model, samples)
            note = note_batch(output, samples)
            # relative to the first, which keeps fp16 in its range; `_close_window` does the rest
            factor = note.weight / before[0].weight if before else 1.0
            self.precision.backward(output["loss"] * factor / size)
        self._meter.update(output, samples)
        return note

    def _gradient_sync(self, closes: bool) -> AbstractContextManager[Any]:
        """Lets DDP exchange gradients only in the backward pass that closes a window."""
        if closes or not hasattr(self.model, "no_sync"):
            return contextlib.nullcontext()
        return self.model.no_sync()  # type: ignore[operator]

    def _close_window(
        self, window: list[BatchNote], epoch: int, started: float, waited: float, wish: int
    ) -> tuple[StepReport, int]:
        lr = self.schedule.set_step(self.global_step - self.skipped)
        self.precision.unscale(self.optimizer)
        shares = _shares(window)
        if len(window) > 1 and isinstance(window[0].weight, Tensor):
            scale_gradients(self._parameters, len(window) * shares[0])
        norm = clip_gradients(self._parameters, self.clip_grad_norm)
        losses = torch.stack([note.loss.float() for note in window])
        wish = wish if self.keeper is None else max(wish, self.keeper.wish())
        broken, wish, grad_norm, loss = _read(losses, (losses * shares).sum(), norm, wish)
        self._overflows = 0 if math.isfinite(grad_norm) else self._overflows + 1
        # in fp16 the scaler leaves out overflowing steps and halves its scale, for a while
        patience = 0 if self.precision.scaler is None else FP16_PATIENCE
        if broken or self._overflows > patience:
            self.optimizer.zero_grad(set_to_none=True)
            raise_nonfinite(window, epoch, self.global_step + 1, grad_norm)
        updated = self.precision.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.global_step += 1
        self.skipped += not updated
        if updated and self.average is not None:
            self.average.update(self.global_step - self.skipped)
        images = sum(note.size for note in window) * get_world_size()
        self.images_seen += images
        report = StepReport(
            epoch=epoch,
            step=self.global_step,
            lr=lr,
            grad_norm=grad_norm,
            loss=loss,
            images=images,
            seconds=time.perf_counter() - started,
            waited=waited,
        )
        return report, wish


def _shares(window: list[BatchNote]) -> Tensor:
    """Returns what part of its window each batch is, float32 (batches,); they add up to 1."""
    device = window[0].loss.device
    weights = [torch.as_tensor(n.weight, dtype=torch.float32, device=device) for n in window]
    stacked = torch.stack(weights)
    return stacked / stacked.sum()


def _read(losses: Tensor, mean: Tensor, norm: Tensor, wish: int) -> tuple[bool, int, float, float]:
    """Fetches from the device what all ranks have to agree on.

    Args:
        losses: float32 (batches,), those of this process.
        mean: Their mean, a scalar.
        norm: Gradient norm, the same on all ranks.
        wish: One of `WISHES`.

    Returns:
        Any rank has a non-finite loss, the largest wish of all ranks, gradient norm, mean loss of
        all ranks.
    """
    broken = (~losses.isfinite()).any().float()
    wishes = torch.tensor([wish == one for one in WISHES], dtype=torch.float32).to(losses.device)
    # all ranks must stop together, or the others wait in the next exchange for ever
    total = sum_over_ranks(torch.stack([broken, *wishes, mean]))
    numbers = torch.stack([*total, norm.float()])
    flag, *wanted, loss, grad_norm = numbers.tolist()
    agreed = max(one for one, ranks in zip(WISHES, wanted) if ranks)
    return flag > 0, agreed, grad_norm, loss / get_world_size()


def raise_together(error: MSMedCapError | None) -> None:
    """Raises on every rank the error of the first one that has one, if any has."""
    for found in gather_objects([] if error is None else [error]):
        raise found


def to_device(value: Any, device: torch.device) -> Any:
    """Moves the tensors of a nested batch to a device; everything else stays as it is."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(item, device) for item in value)
    return value
