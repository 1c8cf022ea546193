"""A finding behind an author's initial, discs and isotopes were cleaned out of captions."""

from __future__ import annotations

import pytest

from lavis_msmedcap.datasets.caption_text import clean_caption


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (
            "Axial CT. Reproduced with permission from Gaillard F. Coronal CT shows a nodule.",
            "Axial CT. Coronal CT shows a nodule.",
        ),
        (
            "CT chest. Copyright 2010 Smith J. The arrow marks a mass.",
            "CT chest. The arrow marks a mass.",
        ),
        ("CT. Used with permission of X. A mass is seen.", "CT. A mass is seen."),
        ("CT. Copyright 2010 J. R. Smith. A mass.", "CT. A mass."),
        ("CT. Copyright J. Smith and K. Jones. A mass.", "CT. A mass."),
        ("CT. Reprinted with permission from Dr. J. Smith. A mass.", "CT. A mass."),
    ],
)
def test_a_finding_behind_a_name_stays(raw: str, clean: str) -> None:
    assert clean_caption(raw) == clean


@pytest.mark.parametrize(
    "caption",
    [
        *("C[2-3] disc", "vertebrae T[11-12]", "vertebrae L [4, 5]", "[18] FDG PET", "[177] Lu"),
        *("[99] mTc scan", "[123] I scan", "[67] gallium scan", "SUVmax [12]", "zones [1-3]"),
        *("grade [3]", "B. Braun port", "Figure 8 Loop of bowel"),
    ],
)
def test_what_is_no_citation_panel_or_figure_stays(caption: str) -> None:
    assert clean_caption(caption) == caption


def test_citations_still_go() -> None:
    assert clean_caption("A nodule [12] as in others[3, 5-7].") == "A nodule as in others."
    assert clean_caption("Figure 8. Loop of bowel") == "Loop of bowel"
