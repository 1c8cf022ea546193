from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_msmedcap.phantom.facets import FACET_NAMES, Facets, compare_facets, parse_facets


@pytest.mark.parametrize(
    ("caption", "facts"),
    [
        (
            "axial computed tomography, low attenuation nodule, right superior lung, 1.2-cm",
            Facets("ct", "chest", True, "right", "upper", "hypodense", size="small", size_mm=12),
        ),
        (
            "T2 MR IMAGE OF THE HEAD: HYPERINTENSE MASS, LEFT INFERIOR",
            Facets("mri", "brain", True, "left", "lower", "hyperintense", sequence="t2"),
        ),
        (
            "chest x-ray with an irregular radiopaque lesion (arrowhead)",
            Facets("radiograph", "chest", True, contrast="opacity", shape="spiculated", arrow=True),
        ),
        (
            "us of the renal area: dark round lesion",
            Facets("ultrasound", "kidney", True, contrast="hypoechoic", shape="round"),
        ),
        ("Normal radiograph of the pelvis", Facets("radiograph", "pelvis", False)),
        ("ct of the chest without any lesion", Facets("ct", "chest", False)),
        ("A red circle to the left of a blue square.", Facets(side="left")),
        ("", Facets()),
    ],
)
def test_reads_other_wordings(caption: str, facts: Facets) -> None:
    assert parse_facets(caption) == facts


def test_contradictions_are_not_facts() -> None:
    read = parse_facets("lesions in the left upper and right lower lung, hypodense and hyperdense")
    assert (read.side, read.position, read.contrast) == (None, None, None)


def test_cut_off_caption_keeps_what_was_said() -> None:
    read = parse_facets("coronal ct of the brain showing a 12 mm round hypod")
    assert (read.modality, read.organ, read.size_mm, read.shape) == ("ct", "brain", 12, "round")
    assert (read.side, read.contrast) == (None, None)


def test_compare_counts_only_what_the_reference_states() -> None:
    reference = "CT of the liver showing a round hypodense lesion in the left upper lobe."
    scores = compare_facets("mri of the liver, round lesion, right upper lobe", reference)
    assert scores == {
        "modality": False,
        "organ": True,
        "lesion": True,
        "side": False,
        "position": True,
        "contrast": False,
        "shape": True,
    }


@given(st.text(max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    agreement = compare_facets(text, text)
    assert all(agreement.values())
    assert set(agreement) <= set(FACET_NAMES)
