"""The average of the weights: its numbers, who takes it, and that it survives an interruption."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.runners.ema import WeightAverage, averaged
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

DECAY = 0.8


class Watching(MixedSemanticPretrainTask):
    """Keeps the weights before each training step and in each validation; may break off."""

    def __init__(self, train_stop: int = 0, valid_stop: int = 0) -> None:
        super().__init__()
        self.left = {"train": train_stop, "valid": valid_stop}
        self.trained: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def _count(self, kind: str) -> None:
        self.left[kind] -= 1
        if self.left[kind] == 0:
            raise RuntimeError("power cut")

    def train_step(self, model: Any, samples: Any) -> Any:
        self._count("train")
        self.trained.append(model.trainable_state_dict())
        return super().train_step(model, samples)

    def valid_step(self, model: Any, samples: Any) -> Any:
        self._count("valid")
        self.validated.append(model.trainable_state_dict())
        return super().valid_step(model, samples)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def checkpoint(runner: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    return read_checkpoint(Path(runner.output_dir) / "checkpoint_last.safetensors")


@pytest.fixture(scope="module")
def whole(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Watching]:
    task = Watching()
    runner = tiny.make_runner(tmp_path_factory.mktemp("whole"), task, ema_decay=DECAY)
    runner.train()
    return runner, task


def test_validation_and_checkpoints_take_the_average(whole: tuple[Any, Watching]) -> None:
    runner, task = whole
    weights = [*task.trained[1:], runner._model.trainable_state_dict()]
    assert len(weights) == 30
    average = {name: value.double() for name, value in task.trained[0].items()}
    for updates, after in enumerate(weights, 1):
        decay = min(DECAY, (1 + updates) / (10 + updates))
        average = {n: decay * v + (1 - decay) * after[n].double() for n, v in average.items()}
    found, metadata = checkpoint(runner)
    for name, value in average.items():
        torch.testing.assert_close(found[name].double(), value, atol=1e-6, rtol=0)
    assert same(task.validated[-1], found)
    assert not same(runner._model.trainable_state_dict(), found)
    assert metadata["weights"] == "exponential moving average"
    assert metadata["ema_decay"] == str(DECAY)
    assert "run.ema_decay 0.8" in (Path(runner.output_dir) / "log.txt").read_text()


def test_the_training_itself_does_not_change(
    tiny: ModuleType, tmp_path: Path, whole: tuple[Any, Watching]
) -> None:
    plain = tiny.make_runner(tmp_path, Watching())
    plain.train()
    weights, metadata = checkpoint(plain)
    assert same(whole[0]._model.trainable_state_dict(), weights)
    assert "ema_decay" not in metadata


@pytest.mark.parametrize(
    "stop", [{"train_stop": 2}, {"train_stop": 15}, {"valid_stop": 1}, {"valid_stop": 25}], ids=str
)
def test_taken_up_it_ends_in_the_same_average(
    tiny: ModuleType, tmp_path: Path, whole: tuple[Any, Watching], stop: dict[str, int]
) -> None:
    cut = tiny.make_runner(tmp_path, Watching(**stop), ema_decay=DECAY)
    with pytest.raises(RuntimeError, match="power cut"):
        cut.train()
    cut._open.lock.release()  # what the end of the process does
    again = tiny.make_runner(tmp_path, Watching(), ema_decay=DECAY, resume="auto")
    again.train()
    assert again.output_dir == cut.output_dir
    assert same(checkpoint(again)[0], checkpoint(whole[0])[0])
    assert same(again._model.trainable_state_dict(), whole[0]._model.trainable_state_dict())


def test_another_decay_is_another_run(tiny: ModuleType, tmp_path: Path) -> None:
    cut = tiny.make_runner(tmp_path, Watching(train_stop=5), ema_decay=DECAY)
    with pytest.raises(RuntimeError, match="power cut"):
        cut.train()
    cut._open.lock.release()
    with pytest.raises(ConfigError, match=r"run\.ema_decay: 0\.8 -> None"):
        tiny.make_runner(tmp_path, Watching(), resume=str(cut.output_dir))


def test_the_final_test_is_of_the_average(tiny: ModuleType, tmp_path: Path) -> None:
    task = Watching()
    options = {"ema_decay": DECAY, "valid_splits": [], "test_splits": ["val"], "max_epoch": 1}
    runner = tiny.make_runner(tmp_path, task, **options)
    runner.train()
    assert same(task.validated[-1], checkpoint(runner)[0])
    assert not same(task.validated[-1], task.trained[-1])


def test_small_steps_of_bfloat16_weights_are_not_lost() -> None:
    layer = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    layer.weight.data.fill_(1.0)
    average = WeightAverage(layer, 0.999)
    layer.weight.data.fill_(1.0078125)  # the next bfloat16
    for _ in range(10):
        average.update(10**6)
    assert float(average.values["weight"]) == pytest.approx(1 + 0.0078125 * (1 - 0.999**10))


def test_the_weights_come_back_also_after_an_error() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    average = WeightAverage(layer, 0.5)
    assert list(average.values) == ["weight"]
    layer.weight.data.add_(1)
    before = layer.weight.detach().clone()

    def use() -> None:
        with averaged(average):
            assert torch.equal(layer.weight, average.values["weight"])
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        use()
    assert torch.equal(layer.weight, before)
    with averaged(None):
        assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("value", [0, 1, 1.5, True, "much"])
def test_a_decay_is_between_0_and_1(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"run\.ema_decay"):
        RunSettings.from_run_cfg({"ema_decay": value})
