"""``convert-checkpoint --cfg-path`` wrote whatever settings it was given into the new file.

A checkpoint whose header says that SAM saw the authors' input became one that says the raw picture,
and a file that says nothing became one that says it for certain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lavis_msmedcap import cli
from lavis_msmedcap.models.checkpoints import read_checkpoint, save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap

SAM = "model.branches.sam.encoder"


@pytest.fixture
def ours(stage2_settings: dict[str, Any], tmp_path: Path) -> Path:
    """A captioner of ours that reads channels of the authors' input."""
    stage2_settings["branches"]["sam"]["encoder"].update(tokens="channel", input="authors")
    model = MSMedCap.from_config(stage2_settings)
    path = tmp_path / "ours.safetensors"
    save_checkpoint(path, model.trainable_state_dict(), model.checkpoint_metadata())
    return path


@pytest.fixture
def config(ours: Path, stage2_settings: dict[str, Any], tmp_path: Path) -> Path:
    """Its run configuration, complete."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({"model": stage2_settings, "datasets": {}, "run": {}}))
    return path


def convert(source: Path, target: Path, kind: str, config: Path, *options: str) -> int:
    words = ["convert-checkpoint", str(source), str(target), "--to", kind, "--cfg-path"]
    return cli.main([*words, str(config), *(["--options", *options] if options else [])])


def without_notes(source: Path, target: Path) -> Path:
    """Converts to the authors' names and leaves of the file what their code would write."""
    assert cli.main(["convert-checkpoint", str(source), str(target), "--to", "authors"]) == 0
    content = torch.load(target, weights_only=True)
    torch.save({"model": content["model"]}, target)
    return target


def test_a_header_that_says_otherwise_is_an_error(
    ours: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "theirs.pth"
    options = (f"{SAM}.input=raw", "model.prompt=another")
    assert convert(ours, target, "authors", config, *options) == 2
    error = capsys.readouterr().err
    assert f'{SAM}.input is "raw", but {ours} was trained with "authors"' in error
    assert f'add --options {SAM}.input="authors"' in error
    assert 'model.prompt is "another"' in error
    assert str(config) in error
    assert not target.exists()
    assert convert(ours, target, "authors", config) == 0
    assert "the file does not tell" not in capsys.readouterr().out


def test_tensors_that_say_otherwise_are_an_error(
    ours: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = without_notes(ours, tmp_path / "theirs.pth")
    target = tmp_path / "again.safetensors"
    options = (
        f"{SAM}.tokens=spatial",
        f"{SAM}.out_chans=24",
        "model.branches.clip.num_query_token=7",
    )
    assert convert(source, target, "ours", config, *options) == 2
    error = capsys.readouterr().err
    assert "model.branches.clip.num_query_token is 7" in error
    assert f"set {SAM} to the encoder of the training" in error


@pytest.mark.parametrize("value", ["authors", "raw"])
def test_the_configs_word_is_told_as_such(
    ours: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    source = without_notes(ours, tmp_path / "theirs.pth")
    target = tmp_path / "again.safetensors"
    assert convert(source, target, "ours", config, f"{SAM}.input={value}") == 0
    output = capsys.readouterr().out
    assert f"settings taken from {config}, the file does not tell them" in output
    assert f'{SAM}.input among them, "{value}": make sure that it is so' in output
    assert 'the authors\' code has "authors"' in output
    assert f'"input": "{value}"' in read_checkpoint(target)[1]["model"]
