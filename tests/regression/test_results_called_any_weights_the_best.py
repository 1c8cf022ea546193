"""Results said ``epoch best`` of the last epoch, and of weights that their run had not trained.

Met with ``lavis.evaluate`` on a run directory that holds ``checkpoint_last`` alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavis_msmedcap import evaluate
from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint


@pytest.fixture
def only_last(tmp_path: Path) -> Path:
    """A run directory with the captioner that ships as the weights of its second epoch."""
    state, metadata = read_checkpoint(Path(package_path("assets/demo/msmedcap.safetensors")))
    path = tmp_path / "trained" / "checkpoint_last.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, state, {**metadata, "epoch": "2"})
    return path


def test_an_evaluation_names_the_file_and_its_epoch(
    only_last: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = (
        f"model.finetuned={only_last.parent}",
        "run.max_eval_samples=1",
        "run.num_beams=1",
        "run.report=false",
        "run.device=cpu",
    )
    arguments = ["--cfg-path", "projects/msmedcap/evaluate.yaml", "--options", *options]
    assert evaluate.main(arguments) == 0
    (scores,) = (tmp_path / "output").rglob("metrics_test.json")
    metrics = json.loads(scores.read_text())
    assert metrics["epoch"] == "given"
    assert metrics["weights"] == f"{only_last} of epoch 2"
    log = (scores.parents[1] / "log.txt").read_text()
    assert f"scores of test ({only_last} of epoch 2)" in log
    assert "best" not in log
