"""Too little data for an epoch: told with the numbers and the cure, before a model is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap import train
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

CONFIG = "projects/msmedcap/pretrain_mixed.yaml"
FEW = (
    "datasets.coco2014_caption.max_samples={train: 12, val: 4, test: null}",
    "datasets.roco.max_samples={train: 12, val: 4, test: 4}",
    "datasets.medicat=null",
)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "run.batch_size_train=16",
            "a batch takes 16 samples (16 on each of 1 processes), but domain general has only "
            "coco2014_caption 12 x ratio 1; lower run.batch_size_train or raise the ratio, or give "
            "more data",
        ),
        (
            "run.samples_per_epoch=7",
            "run.samples_per_epoch is 7, but one batch of each of 2 domains takes 8",
        ),
    ],
)
def test_an_epoch_without_batches(
    option: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def build(*_: Any) -> None:
        raise AssertionError("the model is built before the data are looked at")

    monkeypatch.setattr(MixedSemanticPretrainTask, "build_model", build)
    output = tmp_path / "out"
    options = [*FEW, f"run.output_dir={output}", "run.batch_size_train=4", option]
    code = train.main(["--cfg-path", CONFIG, "--options", *options])
    assert code == train.EXIT_WRONG_INPUT
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not output.exists()
