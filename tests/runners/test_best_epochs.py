"""Which checkpoints are kept: of the best epoch, of the next best, and after going back."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
import torch

from lavis_msmedcap.models.checkpoints import read_checkpoint, read_notes
from lavis_msmedcap.runners.training_state import StateStore
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

SCORES = (3.0, 5.0, 5.0, 1.0, 7.0, 4.0)
# what is kept of the epochs so far: the best one, the others
KEPT_OF_3 = [(1, []), (2, [1]), (2, [1, 3]), (2, [1, 3]), (5, [2, 3]), (5, [2, 3])]


class Scored(MixedSemanticPretrainTask):
    """Gives every validated epoch a score, or ends in the validation of one."""

    def __init__(self, scores: tuple[float | None, ...], ends_in: int = 0) -> None:
        super().__init__()
        self.scores, self.ends_in = scores, ends_in
        self.kept: list[tuple[int, list[int]]] = []
        self.root = Path()

    def after_evaluation(self, *_: Any, epoch: Any, **__: Any) -> Any:
        if epoch == self.ends_in:
            raise RuntimeError("the end")
        if (self.root / "checkpoint_best.safetensors").is_file():
            self.look()
        return {"agg_metrics": self.scores[epoch - 1]}

    def look(self) -> None:
        best = int(read_notes(self.root / "checkpoint_best.safetensors")["epoch"])
        others = sorted(self.root.glob("checkpoint_epoch-*"))
        self.kept.append((best, [int(read_notes(path)["epoch"]) for path in others]))
        assert [path.stem[-3:] for path in others] == [f"{e:03d}" for e in self.kept[-1][1]]


def train(tiny: ModuleType, folder: Path, task: Scored, **options: Any) -> Path:
    settings = {"max_epoch": len(task.scores), "resume": "auto", **options}
    runner = tiny.make_runner(folder, task, **settings)
    task.root = Path(runner.output_dir)
    try:
        runner.train()
    finally:
        runner._open.lock.release()
    return task.root


def test_three_of_them(tiny: ModuleType, tmp_path: Path) -> None:
    task = Scored(SCORES)
    train(tiny, tmp_path, task, keep_best=3)
    task.look()
    assert task.kept == KEPT_OF_3


@pytest.mark.parametrize("ends_in", range(2, 7))
def test_the_same_after_an_interruption(tiny: ModuleType, tmp_path: Path, ends_in: int) -> None:
    with pytest.raises(RuntimeError, match="the end"):
        train(tiny, tmp_path, Scored(SCORES, ends_in), keep_best=3)
    task = Scored(SCORES)
    train(tiny, tmp_path, task, keep_best=3)
    task.look()
    assert task.kept[-1] == KEPT_OF_3[-1]


def test_a_file_system_without_links(
    tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: Any) -> NoReturn:
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    task = Scored(SCORES)
    root = train(tiny, tmp_path, task, keep_best=2)
    task.look()
    assert task.kept[-1] == (5, [2])
    first, _ = read_checkpoint(root / "checkpoint_epoch-002.safetensors")
    best, _ = read_checkpoint(root / "checkpoint_best.safetensors")
    assert any(not torch.equal(tensor, best[name]) for name, tensor in first.items())


def test_one_is_the_default(tiny: ModuleType, tmp_path: Path) -> None:
    root = train(tiny, tmp_path, Scored(SCORES))
    assert {path.name for path in root.glob("checkpoint*")} == {
        "checkpoint_best.safetensors",
        "checkpoint_last.safetensors",
    }


def test_an_epoch_without_a_score_is_not_kept(tiny: ModuleType, tmp_path: Path) -> None:
    task = Scored((2.0, None, float("nan"), 1.0))
    train(tiny, tmp_path, task, keep_best=4)
    task.look()
    assert task.kept[-1] == (1, [4])


def go_back(tiny: ModuleType, tmp_path: Path, epochs: int) -> Path:
    """A run that ends in the fifth validation, and whose newest states are lost."""
    with pytest.raises(RuntimeError, match="the end"):
        train(tiny, tmp_path, Scored((3.0, 2.0, 6.0, 1.0, 1.0), 5), keep_best=2, keep_last=99)
    [root] = tmp_path.iterdir()
    for path in StateStore(root / "resume").paths():
        if int(path.stem[5:]) > 10 * epochs:
            path.write_bytes(path.read_bytes()[:100])
    return root


def test_going_back_past_the_best_epoch(tiny: ModuleType, tmp_path: Path) -> None:
    """Its weights are not those of this training; the second best ones are the best again."""
    root = go_back(tiny, tmp_path, 2)
    train(tiny, tmp_path, Scored((3.0, 2.0, 2.5, 1.0, 1.0)), keep_best=2, keep_last=99)
    assert facts(root / "checkpoint_best.safetensors") == ("1", "3.0")
    [other] = root.glob("checkpoint_epoch-*")
    assert facts(other) == ("3", "3.0")


def test_going_back_where_no_second_best_was_kept(
    tiny: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = go_back(tiny, tmp_path, 2)
    for path in root.glob("checkpoint_epoch-*"):
        path.unlink()
    train(tiny, tmp_path, Scored((3.0, 2.0, 2.5, 1.0, 1.0)), keep_last=99)
    assert "the weights of epoch 1, the best so far, were replaced" in caplog.text
    assert facts(root / "checkpoint_best.safetensors") == ("3", "2.5")


def facts(path: Path) -> tuple[str, str]:
    notes = read_notes(path)
    return notes["epoch"], notes["best_metric"]


def test_going_back_to_after_the_best_epoch(tiny: ModuleType, tmp_path: Path) -> None:
    root = go_back(tiny, tmp_path, 4)
    train(tiny, tmp_path, Scored((3.0, 2.0, 6.0, 1.0, 7.0)), keep_best=2, keep_last=99)
    assert read_notes(root / "checkpoint_best.safetensors")["best_metric"] == "7.0"
    assert [path.stem for path in root.glob("checkpoint_epoch-*")] == ["checkpoint_epoch-003"]
