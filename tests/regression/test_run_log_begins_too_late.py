"""``log.txt`` began after the model was built, so a run did not say which checkpoint it had loaded.

The configuration names a folder of runs, of which the newest was taken: nothing told which.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from lavis_msmedcap import launch
from lavis_msmedcap.run_config import RunConfig
from lavis_msmedcap.runners.run_log import RunLog


def test_the_log_file_has_what_was_logged_while_building(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Runner:
        def __init__(self) -> None:
            self.log = RunLog(tmp_path / "log.txt", visible=True)

        def train(self) -> None:
            with self.log.attached():
                logging.getLogger("lavis_msmedcap").info("trained")

    def build_runner(_: Any) -> Runner:
        logging.getLogger("lavis_msmedcap.models").info("loaded from 20240102-030405-abcdef")
        runner = Runner()
        with runner.log.attached():  # as RunnerMSMedCap does
            return runner

    monkeypatch.setattr(launch, "build_runner", build_runner)
    config = OmegaConf.create({"run": {"device": "cpu"}, "scale": "demo"})
    launch.launch(RunConfig(config, Path("run.yaml")))
    text = (tmp_path / "log.txt").read_text()
    assert "scale: demo" in text
    assert "loaded from 20240102-030405-abcdef" in text
    assert text.rstrip().endswith("trained")
