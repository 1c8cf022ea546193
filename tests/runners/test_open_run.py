"""Which run is taken up: never one that is finished or lost, never one that another works in."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners import open_run
from lavis_msmedcap.runners.open_run import open_run_directory
from lavis_msmedcap.runners.run_status import (
    JointBatches,
    RunStatus,
    fingerprint,
    lock,
    read_status,
)

CONFIG: dict[str, Any] = {"run": {"init_lr": 0.1}}
BATCHES = JointBatches(4)


def made(folder: Path, name: str, state: bool = True, **status: Any) -> Path:
    """Makes the directory of an unfinished run of `CONFIG`."""
    root = folder / name
    (root / "result").mkdir(parents=True)
    RunStatus(fingerprint(CONFIG), BATCHES, **status).write(root)
    if state:
        (root / "resume").mkdir()
        (root / "resume" / "step-000000024.safetensors").write_bytes(b"state")
    return root


def opened(folder: Path, resume: str = "auto") -> tuple[Path, bool]:
    found = open_run_directory(str(folder), resume, CONFIG, BATCHES)
    assert found.lock is not None
    found.lock.release()
    return found.directory.root, found.resumed


def test_the_newest_with_a_state_goes_before_a_newer_one_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, "20260101-000000-aaaaaa")
    good = made(tmp_path, "20260102-000000-aaaaaa")
    empty = made(tmp_path, "20260103-000000-aaaaaa", state=False)
    assert opened(tmp_path) == (good, True)
    shutil.rmtree(good)
    shutil.rmtree(tmp_path / "20260101-000000-aaaaaa")
    assert opened(tmp_path) == (empty, True)


def while_another_ends(root: Path, change: Callable[[], None]) -> threading.Thread:
    """Holds a run for half a second, changes something, and lets go of it."""
    taken = threading.Event()

    def work() -> None:  # a lock belongs to its thread
        held = lock(root)
        assert held is not None
        taken.set()
        time.sleep(0.5)
        change()
        held.release()

    thread = threading.Thread(target=work)
    thread.start()
    assert taken.wait(10)
    return thread


@pytest.mark.parametrize("how", ["auto", "by name"])
def test_a_run_that_was_finished_while_its_lock_was_waited_for(tmp_path: Path, how: str) -> None:
    root = made(tmp_path, "20260102-000000-aaaaaa")

    def finish() -> None:
        RunStatus(fingerprint(CONFIG), BATCHES, finished=True).write(root)
        shutil.rmtree(root / "resume")

    thread = while_another_ends(root, finish)
    if how == "auto":
        new, resumed = opened(tmp_path)
        assert (new != root, resumed) == (True, False)
    else:
        with pytest.raises(ConfigError, match="is finished"):
            opened(tmp_path, str(root))
    thread.join()
    again = lock(root)
    assert again is not None
    again.release()


@pytest.mark.parametrize("sign", ["validation", "checkpoint"])
def test_a_run_that_has_lost_its_states_is_left_as_it_is(
    tmp_path: Path, sign: str, caplog: pytest.LogCaptureFixture
) -> None:
    validations = [(1, 0.5)] if sign == "validation" else []
    root = made(tmp_path, "20260102-000000-aaaaaa", state=False, validations=validations)
    if sign == "checkpoint":
        (root / "checkpoint_last.safetensors").write_bytes(b"weights")
    new, resumed = opened(tmp_path)
    assert (new != root, resumed) == (True, False)
    assert f"{root} has lost its states (resume/): it cannot be taken up" in caplog.text


def test_a_damaged_status_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = made(tmp_path, "20260102-000000-aaaaaa")
    (root / "status.json").write_bytes(b"")
    new, resumed = opened(tmp_path)
    assert (new != root, resumed) == (True, False)
    assert f"{root / 'status.json'} cannot be read" in caplog.text
    shutil.rmtree(new)
    with pytest.raises(ConfigError, match=r"status\.json cannot be read.*run\.resume_changed=true"):
        opened(tmp_path, str(root))


def test_a_directory_is_locked_before_it_looks_like_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts at the same moment must not work in one folder."""
    monkeypatch.setattr(open_run, "WAIT_FOR_LOCK", 0.1)
    others: list[tuple[Path, bool]] = []
    write = RunStatus.write

    def write_and_start_another(status: RunStatus, root: Path) -> None:
        write(status, root)
        if not others:
            others.append((root, False))
            others.append(opened(tmp_path))

    monkeypatch.setattr(RunStatus, "write", write_and_start_another)
    first, resumed = opened(tmp_path)
    assert (first, resumed) == others[0]
    assert others[1][0] != first


def test_a_damaged_configuration_of_another_run_is_no_obstacle(tmp_path: Path) -> None:
    root = made(tmp_path, "20260102-000000-aaaaaa")
    RunStatus("another", BATCHES).write(root)
    (root / "config.yaml").write_text("run: [")
    assert not opened(tmp_path)[1]


def test_a_finished_run_stays_as_it_is(tiny: ModuleType, tmp_path: Path) -> None:
    """Also if somebody has put a file beside its states."""
    from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

    runner = tiny.make_runner(tmp_path, MixedSemanticPretrainTask(), max_epoch=1)
    root = Path(runner.output_dir)
    (root / "resume").mkdir()
    (root / "resume" / ".nfs0000").touch()
    runner.train()
    status = read_status(root)
    assert status is not None
    assert status.finished
    assert [path.name for path in (root / "resume").iterdir()] == [".nfs0000"]


def test_a_run_that_began_with_other_weights_is_another_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Stage 1 was trained anew: stage 2 must not go on from what the old one gave."""
    root = made(tmp_path, "20260102-000000-aaaaaa", origin="/runs/old/checkpoint_best.safetensors")
    OmegaConf.save(OmegaConf.create(CONFIG), root / "config.yaml")
    found = open_run_directory(str(tmp_path), "auto", CONFIG, BATCHES, "/runs/new/last.safetensors")
    assert (found.directory.root != root, found.resumed) == (True, False)
    told = "trained weights to start from: /runs/old/checkpoint_best.safetensors -> /runs/new/last"
    assert told in caplog.text


def test_the_run_beside_which_one_is_started_is_not_recommended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = made(tmp_path, "20260102-000000-aaaaaa")
    OmegaConf.save(OmegaConf.create(CONFIG), root / "config.yaml")
    held = lock(root)
    assert held is not None
    other = {"run": {"init_lr": 0.2}}
    assert not open_run_directory(str(tmp_path), "auto", other, BATCHES).resumed
    assert "resume_changed" not in caplog.text
    held.release()


def test_off_does_not_complain_of_lost_states(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made(tmp_path, "20260102-000000-aaaaaa", state=False, validations=[(1, 0.5)])
    assert not opened(tmp_path, "off")[1]
    assert "lost its states" not in caplog.text


@pytest.mark.parametrize(
    ("second", "same"), [("/b/20260101-000000-aaaaaa", True), ("/a/20260102-000000-bbbbbb", False)]
)
def test_all_runs_may_move_together(
    tiny: ModuleType, tmp_path: Path, second: str, same: bool
) -> None:
    from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

    roots = []
    for folder in ("/a/20260101-000000-aaaaaa", second):
        model = tiny.TinyModel()
        model.starts_from = f"{folder}/checkpoint_best.safetensors"
        runner = tiny.make_runner(tmp_path, MixedSemanticPretrainTask(), model, resume="auto")
        runner._open.lock.release()
        roots.append(runner.output_dir)
    assert (roots[0] == roots[1]) == same
