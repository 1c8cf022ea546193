from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lavis.common.registry import registry
from omegaconf import OmegaConf

from lavis_msmedcap.common.config_check import check
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.processors.caption_processors import (
    PRESETS,
    SWITCHES,
    MSMedCapCaptionProcessor,
)

RAW = "Figure 2. (A) Axial CT of the left kidney (arrow), 0.37 cm [12]. \u00a9 2010 Elsevier."
CLEAN = "Axial CT of the left kidney, 0.37 cm."


def test_registered_with_everything_on_but_lower_case():
    cls = registry.get_processor_class("msmedcap_caption")
    assert cls.from_config()(RAW) == CLEAN
    lower = cls.from_config(OmegaConf.create({"name": "msmedcap_caption", "lower": True}))
    assert lower(RAW) == CLEAN.lower()


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("strip_figure_prefix", f"Figure 2. (A) {CLEAN}"),
        ("strip_panels", f"(A) {CLEAN}"),
        ("strip_pointers", "Axial CT of the left kidney (arrow), 0.37 cm."),
        ("strip_citations", "Axial CT of the left kidney, 0.37 cm [12]."),
        ("strip_copyright", f"{CLEAN} \u00a9 2010 Elsevier."),
    ],
)
def test_each_switch_turns_its_step_off(switch, expected):
    config = OmegaConf.create({switch: False})
    assert MSMedCapCaptionProcessor.from_config(config)(RAW) == expected


def test_presets_and_switches_combine_and_switches_win():
    minimal = MSMedCapCaptionProcessor(preset="minimal")
    assert minimal(f" {RAW}\u2028") == RAW
    some = MSMedCapCaptionProcessor.from_config({"preset": "minimal", "strip_pointers": True})
    assert some(RAW) == RAW.replace(" (arrow)", "")
    blip = MSMedCapCaptionProcessor(preset="blip", strip_punctuation=False, strip_panels=True)
    assert blip("(A) CT, 0.37 cm") == "ct, 0.37 cm"
    assert all(set(preset) == set(SWITCHES) for preset in PRESETS.values())


NASTY = [
    RAW,
    "",
    "...",
    "\n",
    "\n.\n",
    "a\n",
    " \ta",
    "\ta \n",
    ". \t\u00a0b\x1c",
    "\x85 a",
    "\u0130stanbul; ~x~",
    "Stra\u00dfe *#* 0.37 cm",
    "e\u0301 \ufeff\u200b",
    " ".join(f"w{i}." for i in range(60)),
    "a  " * 51,
]


@given(
    st.one_of(st.text(), st.text(alphabet=' \t\n\r\x0b\x1c\x85\u00a0\u2028.!"()*#:;~aB\u0130')),
    st.sampled_from([1, 3, 50]),
    st.sampled_from(["", "a photo of "]),
)
@example(NASTY[-1], 50, "")
@example(NASTY[-2], 50, "")
def test_the_preset_blip_writes_what_lavis_writes(text, max_words, prompt):
    config = OmegaConf.create({"prompt": prompt, "max_words": max_words})
    theirs = registry.get_processor_class("blip_caption").from_config(config)
    ours = MSMedCapCaptionProcessor.from_config({**config, "preset": "blip"})
    for caption in (text, *NASTY):
        assert ours(caption) == theirs(caption)


def test_prompt_is_kept_as_written():
    processor = MSMedCapCaptionProcessor(prompt="A scan of ", lower=True)
    assert processor("Fig. 1. The KNEE") == "A scan of the knee"
    assert MSMedCapCaptionProcessor.from_config({"prompt": None})("CT") == "CT"


def test_long_captions_are_cut_at_words():
    text = " ".join(f"word{i}" for i in range(60))
    counts = Counter()
    assert len(MSMedCapCaptionProcessor().prepare(text, counts).split(" ")) == 50
    assert counts == {"cut": 1}
    assert MSMedCapCaptionProcessor(max_words=0)(text) == text


def test_counts():
    counts = Counter()
    processor = MSMedCapCaptionProcessor(strip_punctuation=True, lower=True)
    for caption in (RAW, "plain", "two\u00a0words", "..."):
        assert processor.prepare(caption, counts) == processor(caption)
    assert counts == {
        "figure_prefix": 1,
        "panels": 1,
        "pointers": 1,
        "citations": 1,
        "copyright": 1,
        "spaces": 1,
        "lower": 1,
        "punctuation": 2,
        "empty": 1,
    }


def test_bad_values_and_typos_are_found():
    with pytest.raises(ConfigError, match=r"max_words is -1[\s\S]*'medcal'[\s\S]*'upper'"):
        MSMedCapCaptionProcessor("", -1, "medcal", upper=True)
    keys = MSMedCapCaptionProcessor.CONFIG_KEYS
    assert check({"prompt": None, "max_words": 0, "lower": True, "preset": "blip"}, keys) == []
    (problem,) = check({"strip_pointer": True}, keys)
    assert "strip_pointers" in problem
