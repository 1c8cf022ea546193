"""Runs of a tiny model in processes of their own, in which something really goes wrong.

    run_worker.py disk FOLDER              a disk that fills up; FOLDER is an empty file system
    run_worker.py ranks FOLDER FAULT       one of two processes fails; started by torchrun

Kept as a plain file (not a test module). Prints, or writes into the folder, what a test looks at.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
from omegaconf import OmegaConf
from torch import nn

from lavis_msmedcap import launch, train
from lavis_msmedcap.common.distributed import get_rank
from lavis_msmedcap.common.errors import StorageError
from lavis_msmedcap.imaging.read import read_image
from lavis_msmedcap.models.checkpoints import read_checkpoint
from lavis_msmedcap.run_config import RunConfig
from lavis_msmedcap.runners.runner_msmedcap import RunnerMSMedCap
from lavis_msmedcap.runners.tables import CsvTable
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

STEPS = 10  # of an epoch


class Faulty(MixedSemanticPretrainTask):
    """Calls something before a training step, counted from 1."""

    def __init__(self, step: int = 0, action: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.left = step
        self.action = action

    def train_step(self, model: nn.Module, samples: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            self.action()
        return super().train_step(model, samples)


class AskedInValidation(MixedSemanticPretrainTask):
    """Its process is asked to stop, and no other one is."""

    def valid_step(self, model: nn.Module, samples: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().valid_step(model, samples)


class Saved(tiny.TinyModel):  # type: ignore[name-defined, misc]
    """Calls something when its weights are asked for to be saved, counted from 1."""

    def __init__(self, time: int, action: Callable[[], None]) -> None:
        super().__init__()
        self.time = time
        self.action = action

    def trainable_state_dict(self) -> Any:
        self.time -= 1
        if self.time == 0:
            self.action()
        return super().trainable_state_dict()


def make(
    folder: Path, task: Any, model: Any = None, dataset: Any = None, **options: Any
) -> RunnerMSMedCap:
    options = {"max_epoch": 2, "log_freq": 1, "warmup_steps": 0, "resume": "auto", **options}
    runner: RunnerMSMedCap = tiny.make_runner(folder, task, model, dataset, **options)
    return runner


def told(action: Callable[[], Any]) -> tuple[int, str]:
    """Returns the exit code of a command and what it writes to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as text:
        code = train.guarded(action)
    return code, text.getvalue()


def weights(folder: Path) -> dict[str, list[float]]:
    [path] = folder.glob("*/checkpoint_last.safetensors")
    return {name: tensor.flatten().tolist() for name, tensor in read_checkpoint(path)[0].items()}


def fill(folder: Path) -> None:
    """Takes the last free byte of a file system."""
    with contextlib.suppress(OSError), (folder / "ballast").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def full_disk(
    disk: Path, name: str, step: int = 0, save: int = 0, **options: Any
) -> dict[str, Any]:
    """A run whose disk fills up at a step or while a checkpoint is made, and the same run again."""
    folder = disk / name
    before: list[str] = []

    def fill_up() -> None:
        before.extend(files(folder))
        fill(disk)

    def run(task: Any, model: Any = None) -> None:
        runner = make(folder, task, model, **options)
        try:
            runner.train()
        finally:
            runner._open.lock.release()  # type: ignore[union-attr] # what the process' end does

    code, message = told(lambda: run(Faulty(step, fill_up), Saved(save, fill_up)))
    after = files(folder)
    (disk / "ballast").unlink()
    again, _ = told(lambda: run(Faulty()))
    found = {
        "code": code,
        "message": message,
        "new": sorted({*after} - {*before}),
        "again": again,
        "runs": len(list(folder.iterdir())),
        "weights": weights(folder),
        "left": [name for name in files(folder) if ".part" in name or "resume" in name],
    }
    shutil.rmtree(folder)
    return found


def full_table(disk: Path) -> dict[str, Any]:
    """Rows until there is no room for one."""
    table = CsvTable(disk / "metrics.csv", ["step", "text"])
    table.append({"step": 0, "text": "x"})
    fill(disk)
    message = ""
    while not message:
        try:
            table.append({"step": 1, "text": "x" * 1500})
        except StorageError as error:
            message = str(error)
    text = table.path.read_text()
    (disk / "ballast").unlink()
    table.append({"step": 2, "text": "x"})
    return {"message": message, "kept": text, "then": table.path.read_text()}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def disk(folder: Path) -> None:
    expected = make(folder / "whole", Faulty())
    expected.train()
    found = {
        "table": full_table(folder),
        "whole": weights(folder / "whole"),
        "state": full_disk(folder, "state", 3),
        "checkpoint": full_disk(folder, "checkpoint", save=2),  # the first is a rehearsal
        "rows": full_disk(folder, "rows", STEPS + 2, save_every_minutes=0, max_epoch=40),
    }
    sys.stdout.write(json.dumps(found) + "\n")


class OneBroken(tiny.TinyDataset):  # type: ignore[name-defined, misc]
    """A dataset whose image 13 cannot be read on the second process while the file is broken."""

    file: Path

    def __getitem__(self, index: int) -> Any:
        if index == 13 and self.split == "train" and os.environ["RANK"] == "1":
            read_image(self.file)
        return super().__getitem__(index)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def mistake() -> None:
    raise TypeError("a mistake in code")


def wait_for(flag: Path) -> None:
    while not flag.exists():
        time.sleep(0.01)
    kill()


def slowly(flag: Path) -> None:
    """Takes its time over a checkpoint, in which the other process dies."""
    flag.touch()
    time.sleep(1)


def with_fault(folder: Path, fault: str) -> RunnerMSMedCap:
    first, flag = get_rank() == 0, folder / "flag"
    task: Any = Faulty()
    model: Any = tiny.TinyModel()
    if fault == "step" and not first:
        task = Faulty(3, kill)
    if fault == "mistake" and not first:
        task = Faulty(2, mistake)
    if fault == "asked" and not first:
        task = AskedInValidation()
    if fault == "checkpoint":
        if first:
            model = Saved(2, lambda: slowly(flag))
        else:
            threading.Thread(target=wait_for, args=[flag], daemon=True).start()
    if fault == "first" and first:
        model = Saved(2, kill)
    return make(folder / "runs", task, model, OneBroken, batch_size_train=2, num_workers=1)


def ranks(folder: Path, fault: str) -> None:
    OneBroken.file = folder / "image.png"
    config = OmegaConf.create({"run": {"device": "cpu", "output_dir": str(folder / "runs")}})
    launch._prepare = lambda _config: with_fault(folder, fault)
    launch.launch(RunConfig(config, folder / "run.yaml"))


if __name__ == "__main__":
    if sys.argv[1] == "disk":
        disk(Path(sys.argv[2]))
    else:
        sys.exit(train.guarded(lambda: ranks(Path(sys.argv[2]), sys.argv[3])))
