"""A branch that a file sets to null came back with what the file's scale says about it.

``clip: null`` over caption.yaml trained with both branches under ``scale: authors``, because that
scale sets the CLIP encoder's image size.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lavis_msmedcap.run_config import RunConfig, resolve_run_config
from lavis_msmedcap.run_sources import packaged_configs

SCALES = ("demo", "paper", "authors")


@pytest.fixture
def without_clip(tmp_path: Path) -> Path:
    """A file over caption.yaml that leaves the CLIP branch out."""
    base = str(packaged_configs()["projects/msmedcap/caption.yaml"])
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"base": base, "model": {"branches": {"clip": None}}}))
    return path


def resolve(path: Path, *options: str) -> RunConfig:
    return resolve_run_config(str(path), options)[0]  # its weights are not here, which is told


@pytest.mark.parametrize("scale", SCALES)
def test_null_wins_at_every_scale(without_clip: Path, scale: str) -> None:
    config = resolve(without_clip, f"scale={scale}")
    assert config.model_cfg.branches.clip is None
    assert config.model_cfg.branches.sam is not None
    said = "scales: the settings of model.branches.clip are left out: the file sets it to null"
    assert (said in config.notes) == (scale == "authors")


def test_the_body_of_the_same_file_wins_too(without_clip: Path, tmp_path: Path) -> None:
    body = yaml.safe_load(packaged_configs()["projects/msmedcap/caption.yaml"].read_text())
    body["model"]["branches"] = {"clip": None}
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(body))
    at_authors = resolve(path, "scale=authors")
    assert at_authors.to_dict() == resolve(without_clip, "scale=authors").to_dict()
    assert at_authors.model_cfg.branches.clip is None


def test_an_option_brings_it_back_with_its_scale(without_clip: Path) -> None:
    option = "model.branches.clip.num_query_token=16"
    config = resolve(without_clip, "scale=authors", option)
    assert config.model_cfg.branches.clip.num_query_token == 16
    assert config.model_cfg.branches.clip.encoder.image_size == 224
    assert config.notes == ()


def test_a_scale_may_drop_a_branch(without_clip: Path) -> None:
    body = yaml.safe_load(without_clip.read_text())
    body["scales"] = {"paper": {"model": {"branches": {"clip": None, "sam": None}}}}
    without_clip.write_text(yaml.safe_dump(body))
    config = resolve(without_clip, "scale=paper")
    assert config.model_cfg.branches.sam is None
    assert config.notes == ()
