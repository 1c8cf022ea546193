"""A checkpoint whose header is damaged loaded without a word, or ended in a traceback.

The comparison of prompt, SAM's tokens and frozen networks was off, and nothing said so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lavis_msmedcap import cli
from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.checkpoints import read_any_checkpoint, save_checkpoint
from lavis_msmedcap.models.conversion import convert
from lavis_msmedcap.models.msmedcap import MSMedCap

ODD_SETTINGS = json.dumps({"branches": [1], "qformer": 3})
ODD_MARKS = json.dumps({"opt_model.model.decoder.embed_tokens.weight": "x"})


@pytest.fixture
def model(stage2_settings: dict[str, Any]) -> MSMedCap:
    return MSMedCap.from_config(stage2_settings)


@pytest.fixture
def write(model: MSMedCap, tmp_path: Path) -> Callable[..., Path]:
    def with_header(**entries: str | None) -> Path:
        header = {**model.checkpoint_metadata(), **entries}
        told = {key: value for key, value in header.items() if value is not None}
        save_checkpoint(tmp_path / "a.safetensors", model.trainable_state_dict(), told)
        return tmp_path / "a.safetensors"

    return with_header


@pytest.mark.parametrize(
    ("entries", "untold"),
    [
        ({}, []),
        ({"model": "{not json"}, ["settings"]),
        ({"model": ODD_SETTINGS}, ["settings"]),
        ({"frozen": ODD_MARKS}, ["frozen networks"]),
        ({"frozen": None}, ["frozen networks"]),
        ({"model": None, "frozen": None}, ["settings", "frozen networks"]),
    ],
)
def test_what_cannot_be_compared_is_one_warning(
    model: MSMedCap,
    write: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    entries: dict[str, str | None],
    untold: list[str],
) -> None:
    file = write(**entries)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        model.load_checkpoint(str(file))
    warnings = [r.getMessage() for r in caplog.records]
    assert len(warnings) == (1 if untold else 0)
    for part in untold:
        assert f"{part} (" in warnings[0]
        assert str(file) in warnings[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {1: torch.zeros(2)}}, "a tensor under the key 1; expected names"),
        (
            {"model": {"Qformer.x": torch.zeros(2)}, "lavis_msmedcap": "str"},
            "entry 'lavis_msmedcap' is 'str'; expected a mapping",
        ),
    ],
)
def test_a_pytorch_file_of_another_make(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=message):
        read_any_checkpoint(tmp_path / "odd.pth")


def test_a_note_of_an_edited_conversion(write: Callable[..., Path]) -> None:
    checkpoint = read_any_checkpoint(write(added="everything"))
    with pytest.raises(WeightsError, match="note 'added' is no list of names"):
        convert(checkpoint, "authors", "a.safetensors")


def test_the_command_converts_without_settings_and_says_where_it_cannot_write(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(write(model=ODD_SETTINGS))
    arguments = ["convert-checkpoint", source, "--to=blip2", "--branch=sam"]
    assert cli.main([*arguments, str(tmp_path / "sam.pth")]) == 0
    (tmp_path / "file").write_text("no folder")
    target = tmp_path / "file" / "sam.pth"
    assert cli.main([*arguments, str(target)]) == 2
    error = capsys.readouterr().err
    assert f"TARGET {target} cannot be written (" in error
    assert "Traceback" not in error
