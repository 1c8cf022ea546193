from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_msmedcap.datasets.laterality import can_swap, names_side, swap_sides


@pytest.mark.parametrize(
    ("caption", "mirrored"),
    [
        ("Mass in the left lung.", "Mass in the right lung."),
        ("Right adrenal, LEFT kidney", "Left adrenal, RIGHT kidney"),
        ("left-sided effusion, right pleura", "right-sided effusion, left pleura"),
        (
            "the leftmost panel, midline shift rightward",
            "the rightmost panel, midline shift leftward",
        ),
        ("(left) and 2left", "(right) and 2right"),
        ("a lefthand scar, righthanded", "a righthand scar, lefthanded"),
    ],
)
def test_sides_that_can_be_swapped(caption, mirrored):
    assert names_side(caption)
    assert can_swap(caption)
    assert swap_sides(caption) == mirrored
    assert swap_sides(mirrored) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "bilateral infiltrates",
        "upright chest radiograph",
        "copyright, all rights reserved",
        "leftover barium, bright spots, cleft lip",
        "L4/L5 disc, T1, L-carnitine, R-CHOP, 12L",
        "",
    ],
)
def test_captions_without_a_side(caption):
    assert not names_side(caption)
    assert can_swap(caption)
    assert swap_sides(caption) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "the catheter was left in place",
        "at a right angle to the left wall",
        "right-angled clamp",
        "(L) kidney",
        "R lung",
        "spine at L 4",
        "L-sided effusion",
        "stenosis of the LAD",
        "RV dilatation",
        "linksseitiger Erguss",
        "rechtsseitige Pneumonie",
        "marked LVH and RVH",
        "an LVEF of 30%",
        "thrombus of the LAA",
        "LIMA graft, RIMA graft",
        "LBBB or RBBB",
        "LAO view",
        "RPO view",
        "the LHV and the RPV",
        "stent in the LSCA",
        "fundus, OD",
        "fundus photograph OS",
        "R-MLO mammogram",
        "right-to-left shunt",
        "left to right shunt",
        "signs of right heart failure",
        "left-sided heart failure",
        "Lt. kidney",
        "lt kidney",
        "TDM du poumon gauche",
        "rein droit",
        "ri\u00f1\u00f3n izquierdo",
        "arteria carotis sinistra",
        "dextrocardia",
        "situs inversus totalis",
        "levoscoliosis",
        "the lEft kidney",
    ],
)
def test_in_doubt_a_side_is_named_and_not_swapped(caption):
    assert names_side(caption)
    assert not can_swap(caption)


@given(
    st.lists(
        st.sampled_from(
            [
                "left",
                "Left",
                "LEFT",
                "right",
                "RIGHT",
                "lEFT",
                "-sided",
                "ward",
                " ",
                ".",
                "up",
                "s",
                "L",
            ]
        )
    ).map("".join)
    | st.text()
)
def test_swapping_twice_gives_the_caption_back(caption):
    swapped = swap_sides(caption)
    assert swap_sides(swapped) == caption
    assert names_side(swapped) == names_side(caption)
    assert can_swap(swapped) == can_swap(caption)
    if not names_side(caption):
        assert swapped == caption
