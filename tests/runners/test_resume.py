"""Taking up a run: the weights of a run without interruption, and clear words where that fails."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from lavis.datasets.datasets.base_dataset import BaseDataset
from torch import Tensor, nn

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.runners import open_run
from lavis_msmedcap.runners.run_status import lock, read_status
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.runners.training_state import StateError, StateStore
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask


class PowerCutError(RuntimeError):
    """Ends a run without any of the steps of an orderly end."""


class Cut(MixedSemanticPretrainTask):
    """Breaks off in a training or validation step, counted from 1; draws random numbers itself."""

    def __init__(self, train_step: int = 0, valid_step: int = 0) -> None:
        super().__init__()
        self.left = {"train": train_step, "valid": valid_step}

    def _count(self, kind: str) -> None:
        self.left[kind] -= 1
        if self.left[kind] == 0:
            raise PowerCutError(kind)

    def train_step(self, model: nn.Module, samples: Any) -> Any:
        self._count("train")
        noise = torch.randn_like(samples["image"])  # as dropout would
        return super().train_step(model, {**samples, "image": samples["image"] + 0.1 * noise})

    def valid_step(self, model: nn.Module, samples: Any) -> Any:
        self._count("valid")
        return super().valid_step(model, samples)


def make(tiny: ModuleType, folder: Path, task: Any = None, **run: Any) -> RunnerMSMedCap:
    runner: RunnerMSMedCap = tiny.make_runner(folder, task or Cut(), **run)
    return runner


def cut_off(tiny: ModuleType, folder: Path, where: dict[str, int], **run: Any) -> Path:
    runner = make(tiny, folder, Cut(**where), **run)
    with pytest.raises(PowerCutError):
        runner.train()
    runner._open.lock.release()  # what the end of the process does
    return Path(runner.output_dir)


def results(root: Path) -> tuple[dict[str, Tensor], list[dict[str, str]], list[dict[str, str]]]:
    tensors, _ = read_checkpoint(root / "checkpoint_last.safetensors")
    tables = []
    for name in ("metrics.csv", "validation.csv"):
        with (root / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            for name in ("seconds", "images_per_second", "data_wait", "memory_gib"):
                row.pop(name, None)
        tables.append(rows)
    return tensors, tables[0], tables[1]


@pytest.fixture(scope="module")
def whole(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    runner = make(tiny, tmp_path_factory.mktemp("whole"))
    runner.train()
    return results(Path(runner.output_dir))


def same(found: Any, expected: Any) -> None:
    for name, tensor in expected[0].items():
        assert torch.equal(found[0][name], tensor), name
    assert found[1:] == expected[1:]


@pytest.mark.parametrize(
    "where",
    [
        *({"train_step": step} for step in (1, 2, 10, 11, 12, 21, 30)),
        *({"valid_step": step} for step in (1, 10, 25)),
    ],
    ids=str,
)
def test_goes_on_to_the_same_weights_and_tables(
    tiny: ModuleType, tmp_path: Path, whole: Any, where: dict[str, int]
) -> None:
    root = cut_off(tiny, tmp_path, where)
    half = root / "checkpoint_best.safetensors.part-1-2"  # of a process that was killed
    half.write_bytes(b"half")
    runner = make(tiny, tmp_path, resume="auto")
    assert Path(runner.output_dir) == root
    assert not half.exists()
    runner.train()
    same(results(root), whole)
    status = read_status(root)
    assert status is not None
    assert status.finished
    assert not (root / "resume").exists()


# 5 + 5 + 3 optimizer steps of two batches each
BY_STEPS = {
    "max_epoch": None,
    "max_iters": 13,
    "iters_per_inner_epoch": 5,
    "accum_grad_iters": 2,
}


@pytest.fixture(scope="module")
def whole_by_steps(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    runner = make(tiny, tmp_path_factory.mktemp("steps"), **BY_STEPS)
    runner.train()
    return results(Path(runner.output_dir))


@pytest.mark.parametrize(
    "where",
    [
        *({"train_step": step} for step in (1, 6, 10, 11, 21, 24, 26)),
        *({"valid_step": step} for step in (1, 25)),
    ],
    ids=str,
)
def test_a_training_that_counts_steps_goes_on_the_same_way(
    tiny: ModuleType, tmp_path: Path, whole_by_steps: Any, where: dict[str, int]
) -> None:
    root = cut_off(tiny, tmp_path, where, **BY_STEPS)
    runner = make(tiny, tmp_path, resume="auto", **BY_STEPS)
    assert Path(runner.output_dir) == root
    runner.train()
    same(results(root), whole_by_steps)
    assert runner.state.global_step == 13


def test_several_times_in_a_row(tiny: ModuleType, tmp_path: Path, whole: Any) -> None:
    root = cut_off(tiny, tmp_path, {"train_step": 3})
    for step in (4, 2, 7):
        runner = make(tiny, tmp_path, Cut(train_step=step), resume="auto")
        with pytest.raises(PowerCutError):
            runner.train()
        assert runner._open.lock is not None
        runner._open.lock.release()
    make(tiny, tmp_path, resume=str(root)).train()
    same(results(root), whole)


def cut_short(content: bytearray) -> None:
    del content[len(content) // 2 :]


def flip_a_value(content: bytearray) -> None:
    content[-3] ^= 1


def flip_the_progress(content: bytearray) -> None:
    """Another number of images, in a header that can be read."""
    place = content.index(b"images_seen") + len(b'images_seen\\": ')
    content[place] ^= 1


def flip_the_checksum(content: bytearray) -> None:
    content[content.index(b'"checksum":"') + 12] ^= 1


def lose_the_checksum(content: bytearray) -> None:
    content[content.index(b'"checksum":') + 1] ^= 1


DAMAGES = [cut_short, flip_a_value, flip_the_progress, flip_the_checksum, lose_the_checksum]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_passed_over(
    tiny: ModuleType, tmp_path: Path, whole: Any, damage: Callable[[bytearray], None]
) -> None:
    root = cut_off(tiny, tmp_path, {"train_step": 14})
    newest, older = StateStore(root / "resume").paths()
    content = bytearray(newest.read_bytes())
    damage(content)
    newest.write_bytes(content)
    runner = make(tiny, tmp_path, resume="auto")
    runner.train()
    log = (root / "log.txt").read_text()
    assert log.count("Going back to the state before it") == 1
    assert f"{newest} is damaged" in log
    assert f"going on from {older}" in log
    same(results(root), whole)


def test_no_state_that_can_be_read(tiny: ModuleType, tmp_path: Path) -> None:
    root = cut_off(tiny, tmp_path, {"train_step": 14})
    for path in StateStore(root / "resume").paths():
        path.write_bytes(path.read_bytes()[:100])
    written = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(StateError, match=r"no state in .* can be read .* run\.resume=off") as told:
        make(tiny, tmp_path, resume="auto").train()
    assert "last good state" not in told.value.left
    for path, content in written.items():
        if path.name in ("config.yaml", "environment.json", "log.txt"):  # of this start
            continue
        assert path.read_bytes() == content, path


def test_another_configuration_is_another_run(tiny: ModuleType, tmp_path: Path) -> None:
    root = cut_off(tiny, tmp_path, {"train_step": 5})
    assert Path(make(tiny, tmp_path, resume="auto", init_lr=0.1).output_dir) != root
    with pytest.raises(ConfigError, match=r"run\.init_lr: 0\.05 -> 0\.1"):
        make(tiny, tmp_path, resume=str(root), init_lr=0.1)
    # these change no weight
    runner = make(tiny, tmp_path, resume="auto", log_freq=1, num_workers=1)
    assert Path(runner.output_dir) == root


def test_a_run_that_is_still_going_is_left_alone(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_run, "WAIT_FOR_LOCK", 0.1)
    root = cut_off(tiny, tmp_path, {"train_step": 5})
    held = lock(root)
    assert held is not None
    with pytest.raises(ConfigError, match="another process is working"):
        make(tiny, tmp_path, resume=str(root))
    assert Path(make(tiny, tmp_path, resume="auto").output_dir) != root


def test_a_finished_run_is_not_taken_up(tiny: ModuleType, tmp_path: Path) -> None:
    runner = make(tiny, tmp_path, resume="auto")
    runner.train()
    assert make(tiny, tmp_path, resume="auto").output_dir != runner.output_dir
    with pytest.raises(ConfigError, match=r"is finished.*run\.resume=off"):
        make(tiny, tmp_path, resume=str(runner.output_dir))


def test_other_data_are_refused(tiny: ModuleType, tmp_path: Path) -> None:
    cut_off(tiny, tmp_path, {"train_step": 5})
    runner = make_with_less_data(tiny, tmp_path)
    with pytest.raises(StateError, match="the training data was"):
        runner.train()


def make_with_less_data(tiny: ModuleType, folder: Path) -> RunnerMSMedCap:
    class Shorter(tiny.TinyDataset):  # type: ignore[misc, name-defined]
        def __init__(self, name: str, domain: str, count: int, split: str) -> None:
            super().__init__(name, domain, count - 4, split)

    return make(tiny, folder, dataset=Shorter, resume="auto")


def test_off_is_the_default_but_says_what_could_be_taken_up(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = cut_off(tiny, tmp_path, {"train_step": 5})
    with caplog.at_level("INFO"):
        runner = make(tiny, tmp_path)
    assert Path(runner.output_dir) != root
    assert f"an unfinished run like this is at {root}; run.resume=auto goes on" in caplog.text


def test_only_the_newest_states_are_kept(tiny: ModuleType, tmp_path: Path) -> None:
    runner = make(tiny, tmp_path, Cut(train_step=9), keep_last=3)
    with pytest.raises(PowerCutError):
        runner.train()
    names = [path.name for path in StateStore(Path(runner.output_dir) / "resume").paths()]
    assert names == [f"step-{step:09d}.safetensors" for step in (8, 7, 6)]


class RandomDataset(BaseDataset):
    """A dataset as LAVIS has them, whose processor draws random numbers."""

    def __init__(self) -> None:
        super().__init__(lambda x: x, lambda x: x, None, [])

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.rand(3) + index}


@pytest.mark.parametrize("workers", [0, 2])
def test_random_processors_depend_on_the_sample_and_the_epoch_alone(workers: int) -> None:
    from lavis_msmedcap.datasets.mixing import JoinedDataset
    from lavis_msmedcap.runners.worker_errors import PlainErrorLoader

    joined = JoinedDataset({"a": RandomDataset()}, seed=3)
    joined.datasets[0].set_epoch = lambda _: None  # type: ignore[attr-defined]
    loader: Any = PlainErrorLoader(joined, joined.collater, batch_size=2, num_workers=workers)
    joined.set_epoch(1)
    first = torch.cat([batch["image"] for batch in loader])
    torch.manual_seed(99)
    again = torch.cat([batch["image"] for batch in loader])
    joined.set_epoch(2)
    other = torch.cat([batch["image"] for batch in loader])
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_status_of_an_unreadable_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"fingerprint": 1}))
    assert read_status(tmp_path) is None
    shutil.rmtree(tmp_path)
    assert read_status(tmp_path) is None
