"""Cleaning took letters that are no panels: "Figure 1 A 45-year-old man" lost its A.

The siblings lost more: an age, the name of a stain, a tracer, a bacterium.
"""

from __future__ import annotations

import pytest

from lavis_msmedcap.datasets.caption_text import clean_caption

KEPT = [
    ("Figure 1 A 45-year-old man", "A 45-year-old man"),
    ("Fig. 1 a 45-year-old man", "a 45-year-old man"),
    ("Figure 2 A CT scan of the chest", "A CT scan of the chest"),
    ("FIGURE 3 A 3 cm mass", "A 3 cm mass"),
    ("Figure. 45-year-old woman", "Figure. 45-year-old woman"),
    ("Figure 12-year-old boy", "Figure 12-year-old boy"),
    ("Figure 1 E. coli colitis", "E. coli colitis"),
    ("Figure 1 C. Difficile colitis", "C. Difficile colitis"),
    ("Figure 1 A.P. radiograph", "A.P. radiograph"),
    ("Figure 1 A. P. radiograph", "A. P. radiograph"),
    ("Figure 3 H&E Stain of the liver", "H&E Stain of the liver"),
    ("H&E: Liver", "H&E: Liver"),
    ("(H & E) Liver", "(H & E) Liver"),
    ("Figure 4 B Scan of the eye", "B Scan of the eye"),
    ("Figure 4 B Cell Lymphoma", "B Cell Lymphoma"),
    ("[F]-FDG PET", "[F]-FDG PET"),
    ("A scan: retina", "A scan: retina"),
]
PANELS = [
    ("Figure 1A 45-year-old man", "45-year-old man"),
    ("Figure 1 A: 45-year-old man", "45-year-old man"),
    ("Figure 1 A. Axial CT", "Axial CT"),
    ("Figure 1 A - Axial CT", "Axial CT"),
    ("Figure 1 B Axial CT", "Axial CT"),
    ("Figure 1 A-C Axial CT", "Axial CT"),
    ("Figure 1 A, B Axial CT", "Axial CT"),
    ("Figure 2-Axial CT", "Axial CT"),
    ("Figure 1a A 45-year-old man", "A 45-year-old man"),
    ("(A)-(C) Axial CT", "Axial CT"),
]


@pytest.mark.parametrize(("raw", "clean"), KEPT)
def test_what_is_no_panel_stays(raw: str, clean: str) -> None:
    assert clean_caption(raw) == clean


@pytest.mark.parametrize(("raw", "clean"), PANELS)
def test_panels_still_go(raw: str, clean: str) -> None:
    assert clean_caption(raw) == clean
