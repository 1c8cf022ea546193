from __future__ import annotations

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_msmedcap.common.config_check import check
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.processors.caption_processors import MSMedCapCaptionProcessor

RAW = "Figure 2. (A) Axial CT of the left kidney (arrow), 0.37 cm."


def test_registered_with_everything_on_but_lower_case():
    cls = registry.get_processor_class("msmedcap_caption")
    assert cls.from_config()(RAW) == "Axial CT of the left kidney, 0.37 cm."
    lower = cls.from_config(OmegaConf.create({"name": "msmedcap_caption", "lower": True}))
    assert lower(RAW) == "axial ct of the left kidney, 0.37 cm."


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("strip_figure_prefix", "Figure 2. (A) Axial CT of the left kidney, 0.37 cm."),
        ("strip_pointers", "Axial CT of the left kidney (arrow), 0.37 cm."),
        ("strip_panels", "(A) Axial CT of the left kidney, 0.37 cm."),
    ],
)
def test_switches(switch, expected):
    config = OmegaConf.create({switch: False})
    assert MSMedCapCaptionProcessor.from_config(config)(RAW) == expected


def test_prompt_is_kept_as_written():
    processor = MSMedCapCaptionProcessor(prompt="A scan of ", lower=True)
    assert processor("Fig. 1. The KNEE") == "A scan of the knee"
    assert MSMedCapCaptionProcessor.from_config({"prompt": None})("CT") == "CT"


def test_long_captions_are_cut_at_words():
    text = " ".join(f"word{i}" for i in range(60))
    processor = MSMedCapCaptionProcessor()
    assert len(processor(text).split(" ")) == 50
    assert processor.counts["shortened"] == 1
    assert MSMedCapCaptionProcessor(max_words=0)(text) == text


def test_counts():
    processor = MSMedCapCaptionProcessor()
    for caption in (RAW, "Plain.", "Two\u00a0words"):
        processor(caption)
    assert processor.counts == {
        "captions": 3,
        "figure_prefix": 1,
        "panels": 1,
        "pointers": 1,
        "spaces": 1,
    }


def test_bad_values_and_typos_are_found():
    with pytest.raises(ConfigError, match="max_words is -1"):
        MSMedCapCaptionProcessor(max_words=-1)
    keys = MSMedCapCaptionProcessor.CONFIG_KEYS
    assert check({"prompt": None, "max_words": 0, "lower": True}, keys) == []
    (problem,) = check({"strip_pointer": True}, keys)
    assert "strip_pointers" in problem
