"""Real worker processes: an error of ours is told as with none."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lavis_msmedcap.common.errors import BadImageError, ConfigError, DataError, MSMedCapError
from lavis_msmedcap.datasets.caption_datasets import MedCapEvalDataset, MedCapTrainDataset
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.processors.image_processors import MSMedCapImageEvalProcessor
from lavis_msmedcap.runners.loaders import eval_data, train_loader
from lavis_msmedcap.runners.settings import RunSettings
from lavis_msmedcap.runners.worker_errors import WorkerTraceback

CPU = torch.device("cpu")
IMAGES = MSMedCapImageEvalProcessor(16, 32)


def records(folder: Path, broken: int | None) -> list[MedCapRecord]:
    found = []
    for index in range(8):
        path = folder / f"{index}.png"
        Image.new("RGB", (20, 10)).save(path)
        if index == broken:
            path.write_bytes(path.read_bytes()[:40])
        found.append(
            MedCapRecord(str(path), ("a lesion",), f"{index}", "val", None, "roco", "medical")
        )
    return found


def loader(kind: str, folder: Path, workers: int, broken: int | None, images: Any = IMAGES) -> Any:
    cls = {"train": MedCapTrainDataset, "val": MedCapEvalDataset}[kind]
    data = cls(records(folder, broken), images, str, name="roco", domain="medical")
    settings = RunSettings(batch_size_train=2, batch_size_eval=2, num_workers=workers)
    if kind == "train":
        return train_loader({"roco": {"train": data}}, {"roco": "medical"}, settings, CPU)
    return eval_data({"roco": {"val": data}}, "val", settings, CPU).loader


def told(batches: Any) -> MSMedCapError:
    """Returns the error without its traceback, which would keep the workers of the loader alive.

    The garbage collector would then find them in a process that a later test has forked.
    """
    try:
        list(batches)
    except MSMedCapError as error:
        return error.with_traceback(None)
    pytest.fail("no error")


@pytest.mark.parametrize("kind", ["train", "val"])
def test_a_broken_image_is_told_as_without_workers(kind: str, tmp_path: Path) -> None:
    alone, worker = (told(loader(kind, tmp_path, count, broken=5)) for count in (0, 2))
    assert type(worker) is type(alone) is BadImageError
    assert str(worker) == str(alone)
    assert "\n" not in str(worker)
    assert worker.path == str(tmp_path / "5.png")
    assert isinstance(worker.__cause__, WorkerTraceback)
    assert "in read_image" in str(worker.__cause__)


class EverySize:
    """Images of different sizes, which cannot be one batch."""

    def __call__(self, _image: Any) -> torch.Tensor:
        return torch.zeros(int(torch.randint(1, 10**6, ())))


@pytest.mark.parametrize("kind", ["train", "val"])
def test_what_collating_raises_is_told_too(kind: str, tmp_path: Path) -> None:
    error = told(loader(kind, tmp_path, 2, broken=None, images=EverySize()))
    assert type(error) is DataError
    assert str(error).startswith("image has shape (")
    assert "Traceback" not in str(error)


class Mistake:
    def __call__(self, _image: Any) -> torch.Tensor:
        raise KeyError("a mistake in code")


def test_other_errors_keep_the_traceback_of_the_worker(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="Traceback"):
        list(loader("val", tmp_path, 1, broken=None, images=Mistake()))


def test_batches_and_persistent_workers_are_as_before(tmp_path: Path) -> None:
    batches = loader("train", tmp_path, 1, broken=None)
    ids = [[i for batch in batches for i in batch["image_id"]] for _ in range(2)]
    assert len(batches) == 4
    assert ids[0] == ids[1]
    assert sorted(ids[0]) == [str(index) for index in range(8)]


@pytest.mark.parametrize(
    "error", [BadImageError("a.png", "empty"), ConfigError(["a", "b"], "run.yaml"), DataError("x")]
)
def test_errors_pass_between_processes(error: MSMedCapError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_workers_go_on_when_all_processes_are_asked_to_end(name: str, tmp_path: Path) -> None:
    """As torchrun, Slurm and Ctrl-C do: the main process needs batches until its state is saved."""
    others = set(multiprocessing.active_children())  # of tests before, whose loaders still live
    batches = iter(loader("val", tmp_path, 1, None))
    next(batches)
    [worker] = set(multiprocessing.active_children()) - others
    assert worker.pid is not None
    os.kill(worker.pid, getattr(signal, name))
    assert len(list(batches)) == 3
