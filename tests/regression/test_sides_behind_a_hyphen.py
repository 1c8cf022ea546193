"""Pictures were mirrored under "L-MCA", "rMCA", "l kidney", "LeftLung" and foreign words."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lavis_msmedcap.datasets.laterality import can_swap, names_side, swap_sides
from lavis_msmedcap.imaging.augment import sample_rng
from lavis_msmedcap.processors.image_processors import MSMedCapImageTrainProcessor

_FLIP = {"flip": True, "rotation": 0, "crop": 1, "brightness": 0, "contrast": 0, "gamma": 0}


@pytest.mark.parametrize(
    "caption",
    [
        *(
            "Occlusion of the L-MCA.",
            "R-ICA stenosis",
            "L-hip fracture",
            "L\u2011MCA",
            "R\u2013MCA",
        ),
        *("L-M1 segment", "R.MCA", "L_kidney", "kidney_R", "r-MCA", "l-hip", "L-TGA"),
        *("rMCA infarct", "lICA", "lLung", "RLung", "hipL"),
        *("Cyst of the l kidney", "r. lung", "l.kidney", "kidney, l", "lung (r)"),
        *("LeftLung", "rightKidney", "leftlung", "kidneyLeft", "theleft lung"),
        *("rigth lung", "le\u00adft lung", "lymph node 4R", "station 10L", "UL6 abscess"),
        *("mass at 3 o'clock", "clockwise whirl"),
    ],
)
def test_a_side_written_otherwise(caption: str) -> None:
    assert names_side(caption)
    assert not can_swap(caption)


@pytest.mark.parametrize(
    "caption",
    [
        *("h\u00f8yre lunge", "hoyre", "h\u00f8jre", "venstre", "venstresidig", "h\u00f6ger njure"),
        *("ho\u0308ger", "v\u00e4nster", "vanster", "\u043f\u0440\u0430\u0432\u043e\u0433\u043e"),
        *("lewego", "lewy", "prawego p\u0142uca", "prav\u00e9 pl\u00edce", "lijevi", "lev\u00fd"),
        *("\u5de6\u80ba", "\u53f3", "sa\u011f", "sol akciger", "droite", "gauche", "links"),
        *("rechts", "derecha", "izquierdo", "destra", "sinistro", "direito", "esquerda", "dreta"),
        *("oikea", "vasen", "h\u00e6gri", "st\u00e2ng", "bal oldali", "jobb", "\u03b4\u03b5\u03be"),
    ],
)
def test_a_side_in_another_language(caption: str) -> None:
    assert names_side(caption)
    assert not can_swap(caption)


@pytest.mark.parametrize(
    "caption",
    [
        *("R-CHOP", "L-DOPA", "L-dopa", "L-carnitine", "L-arginine", "poly-l-lysine"),
        *("L-asparaginase", "R-wave", "R wave", "R-R interval", "R-on-T", "L-spine", "L spine"),
        *("L-shaped", "l-shaped", "L4/L5", "L-4", "L5-S1", "R2* map", "rCBV map", "rSO2"),
        *("5 l of fluid", "10 mg/l in blood", "r = 0.9", "12L", "\u03bcm", "\u03b1-fetoprotein"),
        *(
            "rightly",
            "upright",
            "cleft",
            "bright",
            "copyright",
            "Wright stain",
            "leftover",
            "dementia with Lewy bodies",
            "Sj\u00f6gren",
        ),
        *("l'examen", "\ufb01brosis", "LUNGS", "levothyroxine", "deranged", "5 \u00b5m"),
    ],
)
def test_no_side(caption: str) -> None:
    assert not names_side(caption)
    assert swap_sides(caption) == caption


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("caption", ["Occlusion of the L-MCA.", "Cyst of the l kidney", "rMCA"])
def test_the_picture_stays_as_it_lies(caption: str, swap: bool) -> None:
    settings = {"augment": {**_FLIP, "swap_laterality": swap}}
    processor = MSMedCapImageTrainProcessor.from_config(settings)
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4] = 255
    for index in range(20):
        picture, text = processor.augment(Image.fromarray(pixels), caption, sample_rng(0, 0, index))
        assert np.array_equal(np.asarray(picture), pixels)
        assert text == caption


_PIECES = (
    *("left", "Left", "LEFT", "right", "Right", "RIGHT", "lEft", "-sided", "ward", "most", "over"),
    *("L", "R", "l", "r", "rMCA", "LAD", "MCA", "kidney", "Lung", "the", "wave", "CHOP", "izq"),
    *("h\u00f8yre", "\u5de6", "\u0308", "\u017f", " ", " ", " ", "-", ".", "/", "_", "'", "4", "s"),
)

_NO_SIDES = re.compile(r"(?<![a-z])(?:left|right)(?:overs?|s)(?![a-z])")
_OTHER = {"left": "right", "right": "left"}


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_what_can_be_swapped_is_swapped_whole(caption: str) -> None:
    swapped = swap_sides(caption)
    assert swap_sides(swapped) == caption
    assert (names_side(swapped), can_swap(swapped)) == (names_side(caption), can_swap(caption))
    if not can_swap(caption):
        return
    assert (swapped != caption) == names_side(caption)
    rest, mirrored = (_NO_SIDES.sub("", text.lower()) for text in (caption, swapped))
    assert mirrored == re.sub("left|right", lambda m: _OTHER[m.group()], rest)
