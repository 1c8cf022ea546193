"""The header that the packaged captioner gets: settings and marks, but no path of a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from by_path import load_module

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.run_config import resolve_run_config

SCRIPT = Path(__file__).parents[2] / "tools" / "demo_backbones" / "ship_captioner.py"


@pytest.fixture(scope="module")
def script() -> Any:
    return load_module(SCRIPT)


@pytest.fixture
def metadata() -> dict[str, str]:
    config, _ = resolve_run_config("projects/msmedcap/caption.yaml")
    model = config.to_dict()["model"]
    assert model["stage1"] == "output/msmedcap/pretrain_mixed"
    mine = {"arch": "msmedcap", "epoch": "3", "frozen": "{}", "config_path": "/home/me/x.yaml"}
    return {**mine, "model": json.dumps(model)}


def test_settings_stay_and_paths_go(script: Any, metadata: dict[str, str]) -> None:
    header = script.shipped_header(metadata)
    assert set(header) == {"arch", "epoch", "frozen", "model"}
    model = json.loads(header["model"])
    assert model["prompt"].startswith("Question")
    assert model["stage1"] is None
    assert model["branches"]["sam"]["encoder"]["weights"] == "package:assets/demo/sam.safetensors"
    assert "output" not in header["model"]


def test_files_outside_the_package_are_refused(script: Any, metadata: dict[str, str]) -> None:
    model = json.loads(metadata["model"])
    model["llm"]["weights"] = "/data/opt"
    with pytest.raises(WeightsError, match="used /data/opt, which users do not have"):
        script.shipped_header({**metadata, "model": json.dumps(model)})
