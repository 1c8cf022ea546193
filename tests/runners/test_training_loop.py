from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from infinite_gradient import InfiniteGradient

from lavis_msmedcap.runners.nonfinite import NonFiniteError
from lavis_msmedcap.runners.optimization import OptimizerError, build_optimizer, clip_gradients
from lavis_msmedcap.runners.precision import Precision
from lavis_msmedcap.runners.schedule import LRSchedule, SchedulePlan
from lavis_msmedcap.runners.training_loop import FP16_PATIENCE, TrainingLoop, to_device

CPU = torch.device("cpu")


def make_loop(model: Any, listener: Any, lr: float = 0.05, sgd: bool = False, **kwargs: Any) -> Any:
    if sgd:  # gradients show in the parameters unscaled
        optimizer: Any = torch.optim.SGD(model.get_optimizer_params(weight_decay=0.0), lr=lr)
    else:
        optimizer = build_optimizer(model, lr, 0.0)
    schedule = LRSchedule(optimizer, "constant_lr", SchedulePlan(init_lr=lr))
    amp = kwargs.pop("amp", "off")
    return TrainingLoop(
        model, lambda m, s: m(s), optimizer, schedule, Precision(amp, CPU), listener, **kwargs
    )


def test_training_lowers_the_loss_and_leaves_frozen_parameters_alone(tiny: ModuleType):
    model, listener = tiny.TinyModel(), tiny.Silent()
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    data = tiny.TinyDataset("coco", "general", 16)
    batches = [tiny.batch_of(data, list(range(i, i + 4))) for i in range(0, 16, 4)]
    loop = make_loop(model, listener)
    first = loop.run_epoch(batches, 0).means()["loss"]
    for epoch in range(1, 15):
        last = loop.run_epoch(batches, epoch).means()["loss"]
    assert last < 0.2 * first
    for name, before in frozen.items():
        assert torch.equal(dict(model.named_parameters())[name], before)
    assert loop.global_step == 60


@pytest.mark.parametrize("clip", [None, 0.1])
def test_two_batches_of_four_equal_one_of_eight(tiny: ModuleType, clip: float | None):
    data = tiny.TinyDataset("coco", "general", 16)
    halves = [tiny.batch_of(data, list(range(i, i + 4))) for i in range(0, 16, 4)]
    wholes = [tiny.batch_of(data, list(range(i, i + 8))) for i in range(0, 16, 8)]
    results = []
    for batches, accumulate in ((halves, 2), (wholes, 1)):
        model = tiny.TinyModel()
        listener = tiny.Silent()
        loop = make_loop(
            model, listener, sgd=True, accumulate=accumulate, clip_grad_norm=clip, log_freq=1
        )
        loop.run_epoch(batches, 0)
        results.append((model.trainable_state_dict(), listener))
    (one, heard_one), (other, heard_other) = results
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=0)
    assert [r.step for r in heard_one.steps] == [1, 2]
    for left, right in zip(heard_one.steps, heard_other.steps):
        assert left.loss == pytest.approx(right.loss, abs=1e-6)
        assert left.grad_norm == pytest.approx(right.grad_norm, abs=1e-6)
    assert heard_one.logs[0][1] == pytest.approx(heard_other.logs[0][1], abs=1e-6)


def test_a_short_last_window_steps_and_leaves_nothing_behind(tiny: ModuleType):
    data = tiny.TinyDataset("coco", "general", 12)
    batches = [tiny.batch_of(data, list(range(i, i + 4))) for i in range(0, 12, 4)]
    model, listener = tiny.TinyModel(), tiny.Silent()
    loop = make_loop(model, listener, sgd=True, accumulate=2, log_freq=1)
    loop.run_epoch(batches, 0)
    assert loop.global_step == 2
    assert all(p.grad is None for p in model.parameters())

    expected = tiny.TinyModel()
    plain = make_loop(expected, tiny.Silent(), sgd=True)
    plain.run_epoch([tiny.batch_of(data, list(range(8)))], 0)
    plain.run_epoch([tiny.batch_of(data, list(range(8, 12)))], 0)
    for name, value in expected.trainable_state_dict().items():
        torch.testing.assert_close(model.trainable_state_dict()[name], value, atol=1e-6, rtol=0)


def test_batches_that_tell_a_weight_count_by_it(tiny: ModuleType):
    """Uneven batches, the last window short: the steps are those of the large batches."""
    data = tiny.TinyDataset("coco", "general", 14)
    small = [tiny.batch_of(data, list(range(a, b))) for a, b in ((0, 4), (4, 5), (5, 8), (8, 14))]
    large = [tiny.batch_of(data, list(range(a, b))) for a, b in ((0, 8), (8, 14))]

    def step(model: Any, samples: Any) -> Any:
        return {**model(samples), "weight": torch.tensor(float(len(samples["image"])))}

    results = []
    for batches, accumulate in ((small, 3), (large, 1)):
        model, listener = tiny.TinyModel(), tiny.Silent()
        loop = make_loop(model, listener, sgd=True, accumulate=accumulate, clip_grad_norm=1.0)
        loop.train_step = step
        loop.run_epoch(batches, 0)
        steps = [(report.loss, report.grad_norm, report.images) for report in listener.steps]
        results.append((model.trainable_state_dict(), torch.tensor(steps)))
    (ours, our_steps), (theirs, their_steps) = results
    torch.testing.assert_close(our_steps, their_steps, atol=1e-6, rtol=1e-6)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=0)


def test_a_nan_loss_stops_and_names_step_dataset_and_images(tiny: ModuleType):
    data = tiny.TinyDataset("roco", "medical", 8)
    model = tiny.TinyModel(poison="roco_train_005")
    loop = make_loop(model, tiny.Silent())
    batches = [tiny.batch_of(data, list(range(i, i + 4))) for i in (0, 4)]
    good = tiny.TinyModel()
    make_loop(good, tiny.Silent()).run_epoch(batches[:1], 0)
    with pytest.raises(NonFiniteError) as caught:
        loop.run_epoch(batches, 0)
    error = caught.value
    assert error.step == 2
    assert error.datasets == ["roco"]
    assert error.image_ids == [f"roco_train_00{i}" for i in (4, 5, 6, 7)]
    assert "suspected images: roco_train_005;" in str(error)
    assert "sam/loss_lm" in str(error)
    # the first step counted, the second did not touch a parameter
    for name, value in good.trainable_state_dict().items():
        assert torch.equal(model.trainable_state_dict()[name], value)


def test_a_nan_in_an_accumulated_batch_names_that_batch_only(tiny: ModuleType):
    data = tiny.TinyDataset("roco", "medical", 8)
    loop = make_loop(tiny.TinyModel(poison="roco_train_001"), tiny.Silent(), accumulate=2)
    batches = [tiny.batch_of(data, list(range(i, i + 4))) for i in (0, 4)]
    with pytest.raises(NonFiniteError) as caught:
        loop.run_epoch(batches, 0)
    assert caught.value.image_ids == [f"roco_train_00{i}" for i in range(4)]


def test_an_infinite_gradient_of_a_finite_loss_stops_too(tiny: ModuleType):
    model = tiny.TinyModel()
    before = model.trainable_state_dict()
    loop = make_loop(model, tiny.Silent(), clip_grad_norm=1.0)

    def step(m: Any, samples: Any) -> Any:
        output = m(samples)
        return {**output, "loss": InfiniteGradient.apply(output["loss"])}

    loop.train_step = step
    with pytest.raises(NonFiniteError, match="gradient is not finite"):
        loop.run_epoch([tiny.batch_of(tiny.TinyDataset("roco", "medical", 2), [0, 1])], 0)
    for name, value in before.items():
        assert torch.equal(model.trainable_state_dict()[name], value)


def test_logs_come_every_log_freq_steps_and_at_the_end(tiny: ModuleType):
    data = tiny.TinyDataset("roco", "medical", 10)
    batches = [tiny.batch_of(data, [i]) for i in range(5)]  # batch size 1
    listener = tiny.Silent()
    loop = make_loop(tiny.TinyModel(), listener, log_freq=2)
    total = loop.run_epoch(batches, 0)
    assert [report.step for report, _ in listener.logs] == [2, 4, 5]
    assert total.samples == 5
    losses = [report.loss for report in listener.steps]
    assert listener.logs[0][1]["loss"] == pytest.approx(sum(losses[:2]) / 2)
    assert total.means()["loss"] == pytest.approx(sum(losses) / 5)


def test_bf16_autocast_runs_the_forward_pass_in_bf16(tiny: ModuleType):
    seen = []
    loop = make_loop(tiny.TinyModel(), tiny.Silent(), amp="bf16")

    def step(m: Any, samples: Any) -> Any:
        seen.append(m.sam(m.encoder(samples["image"])).dtype)
        return m(samples)

    loop.train_step = step
    loop.run_epoch([tiny.batch_of(tiny.TinyDataset("roco", "medical", 4), [0, 1])], 0)
    assert seen == [torch.bfloat16]


def test_optimizer_refuses_frozen_missing_and_doubled_parameters(tiny: ModuleType):
    class Wrong(tiny.TinyModel):  # type: ignore[name-defined]
        groups: Any = None

        def get_optimizer_params(self, **_: Any) -> Any:
            return [{"params": self.groups(self)}]

    model = Wrong()
    for groups, words in (
        (lambda m: list(m.parameters()), "frozen parameters in a group: encoder.bias"),
        (lambda m: list(m.clip.parameters()), "trainable parameters in no group: sam.bias"),
        (
            lambda m: [*m.clip.parameters(), *m.sam.parameters(), m.sam.weight],
            "parameters in two groups: sam.weight",
        ),
    ):
        Wrong.groups = staticmethod(groups)
        with pytest.raises(OptimizerError, match=words):
            build_optimizer(model, 0.1, 0.0)
    model.requires_grad_(False)
    with pytest.raises(OptimizerError, match=r"run\.evaluate"):
        build_optimizer(model, 0.1, 0.0)


def test_gradient_norm_with_and_without_clipping():
    first, second, unused = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
    for largest in (None, 1.0):
        first.grad, second.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
        norm = clip_gradients([first, second, unused], largest)
        assert float(norm) == pytest.approx(5.0)
        assert float(first.grad[0]) == pytest.approx(3.0 if largest is None else 0.6, rel=1e-5)
    assert float(clip_gradients([unused], None)) == 0.0


def test_to_device_goes_into_nested_batches():
    batch = {"image": torch.zeros(1), "names": ["a"], "deep": {"x": [torch.ones(1)]}}
    moved = to_device(batch, torch.device("meta"))
    assert moved["image"].is_meta
    assert moved["deep"]["x"][0].is_meta
    assert moved["names"] == ["a"]


@pytest.mark.parametrize("clip", [None, 0.1])
def test_loss_scaling_does_not_show_in_the_parameters(tiny: ModuleType, clip: float | None):
    """The scaler of fp16, here in fp32 on a CPU: clipping must see unscaled gradients."""
    data = tiny.TinyDataset("coco", "general", 16)
    batches = [tiny.batch_of(data, list(range(i, i + 4))) for i in range(0, 16, 4)]
    weights, norms = [], []
    for scaled in (False, True):
        model, listener = tiny.TinyModel(), tiny.Silent()
        loop = make_loop(model, listener, sgd=True, accumulate=2, clip_grad_norm=clip)
        if scaled:
            loop.precision.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        loop.run_epoch(batches, 0)
        weights.append(model.trainable_state_dict())
        norms.append([report.grad_norm for report in listener.steps])
    assert norms[0] == pytest.approx(norms[1])
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name])


def test_overflow_in_fp16_is_left_out_for_a_while_only(tiny: ModuleType):
    model = tiny.TinyModel()
    before = model.trainable_state_dict()
    loop = make_loop(model, tiny.Silent())
    loop.precision.scaler = torch.amp.GradScaler("cpu")

    def step(m: Any, samples: Any) -> Any:
        output = m(samples)
        return {**output, "loss": InfiniteGradient.apply(output["loss"])}

    loop.train_step = step
    batch = tiny.batch_of(tiny.TinyDataset("roco", "medical", 2), [0, 1])
    loop.run_epoch([batch] * FP16_PATIENCE, 0)
    with pytest.raises(NonFiniteError, match="gradient is not finite"):
        loop.run_epoch([batch], 1)
    for name, value in before.items():
        assert torch.equal(model.trainable_state_dict()[name], value)
