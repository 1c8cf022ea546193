"""Tokenizers were not among what a checkpoint remembers.

A ``vocab.txt`` of the same length with its words in another order loaded a trained stage 1 without
a word: every text then meant another one. The LLM's tokenizer was no fact of a captioner either.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.checkpoints import save_checkpoint
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.models.vocabularies import VOCABULARIES, read_fingerprints

Settings = dict[str, Any]


def saved(model: Any, path: Path, **changes: str) -> Path:
    header = {**model.checkpoint_metadata(), **changes}
    save_checkpoint(path, model.trainable_state_dict(), header)
    return path


@pytest.fixture
def reordered(stage1_settings: Settings, tmp_path: Path) -> Path:
    """The Q-Former's tokenizer with its words in another order."""
    words = (Path(stage1_settings["qformer"]["tokenizer"]) / "vocab.txt").read_text().split("\n")
    special, rest = words[:5], [word for word in words[5:] if word]
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").write_text("\n".join([*special, *rest[::-1], ""]))
    return tmp_path / "words"


def test_stage_1_knows_its_words(
    stage1_settings: Settings, stage2_settings: Settings, reordered: Path, tmp_path: Path
) -> None:
    trained = Blip2DualQformer.from_config(stage1_settings)
    file = saved(trained, tmp_path / "stage1.safetensors")
    loaded = {**stage1_settings, "load_finetuned": True, "finetuned": str(file)}
    there = stage1_settings["qformer"]["tokenizer"]
    moved = tmp_path / "moved"
    shutil.copytree(there, moved)

    def with_words(folder: Path) -> Settings:
        return {**loaded, "qformer": {**loaded["qformer"], "tokenizer": str(folder)}}

    Blip2DualQformer.from_config(with_words(moved))
    cure = rf"set model\.qformer\.tokenizer to the tokenizer of the training \(there {there}\)"
    with pytest.raises(WeightsError, match=cure):
        Blip2DualQformer.from_config(with_words(reordered))
    for branch in loaded["branches"].values():
        branch["init"] = str(file)
    Blip2DualQformer.from_config({**loaded, "load_finetuned": False})
    with pytest.raises(WeightsError, match=cure):
        Blip2DualQformer.from_config({**with_words(reordered), "load_finetuned": False})
    # captioning has no use for the text half
    words = {**stage2_settings["qformer"], "tokenizer": str(reordered)}
    MSMedCap.from_config({**stage2_settings, "qformer": words, "stage1": str(file)})


def test_a_captioner_knows_those_of_its_llm(stage2_settings: Settings, tmp_path: Path) -> None:
    file = saved(MSMedCap.from_config(stage2_settings), tmp_path / "captioner.safetensors")
    folder = tmp_path / "words"
    shutil.copytree(stage2_settings["llm"]["tokenizer"], folder)
    words = json.loads((folder / "vocab.json").read_text())
    last, before = sorted(words, key=words.__getitem__)[-2:]
    words[last], words[before] = words[before], words[last]
    (folder / "vocab.json").write_text(json.dumps(words))
    other = copy.deepcopy(stage2_settings)
    other["llm"]["tokenizer"] = str(folder)
    MSMedCap.from_config({**stage2_settings, "load_finetuned": True, "finetuned": str(file)})
    with pytest.raises(WeightsError, match=r"vocabulary than that of model\.llm\.tokenizer"):
        MSMedCap.from_config({**other, "load_finetuned": True, "finetuned": str(file)})


@pytest.mark.parametrize("entry", ["", "{}", "[1]", "{not json", '{"model.llm.tokenizer": 3}'])
def test_a_header_that_does_not_tell_is_no_error(
    stage2_settings: Settings, tmp_path: Path, entry: str
) -> None:
    assert read_fingerprints(entry) == {}
    model = MSMedCap.from_config(stage2_settings)
    model.load_checkpoint(str(saved(model, tmp_path / "a.safetensors", **{VOCABULARIES: entry})))
