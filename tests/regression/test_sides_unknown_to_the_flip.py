"""Pictures were mirrored under "RIF" or "polmone dx", and a left ventricle became a right one."""

from __future__ import annotations

import pytest

from lavis_msmedcap.datasets.laterality import can_swap, names_side


@pytest.mark.parametrize(
    "caption",
    [
        *("Mass in the RIF", "LIF pain", "LHS effusion", "LVA dissection", "RHA aneurysm"),
        *("LRA stenosis", "LCIA aneurysm", "RSFA occlusion", "RUZ opacity", "LUZ", "RLZ", "RMZ"),
        *("RSPV ablation", "RtMCA", "rtICA", "effusion (l)", "polmone dx", "rene sn", "mama izq."),
        *("poumon D", "rein G.", "rechterseits", "linkerseits"),
    ],
)
def test_a_side_is_named(caption: str) -> None:
    assert names_side(caption)
    assert not can_swap(caption)


@pytest.mark.parametrize(
    "structure",
    [
        *("ventricular hypertrophy", "ventricle", "atrium", "atrial appendage", "coronary artery"),
        *("anterior descending artery", "circumflex artery", "main stem stenosis", "bundle branch"),
        *("lobe of the liver", "hepatic vein", "portal vein", "hemicolectomy", "gastric artery"),
        *("recurrent laryngeal nerve", "middle lobe", "and right ventricles"),
    ],
)
@pytest.mark.parametrize("side", ["left", "Right", "RIGHT"])
def test_a_structure_called_by_its_side_is_not_swapped(side: str, structure: str) -> None:
    assert names_side(f"{side} {structure}")
    assert not can_swap(f"{side} {structure}")


@pytest.mark.parametrize(
    "caption",
    [
        *("left lung", "right upper lobe of the lung", "LEFT kidney", "right main bronchus"),
        *("left pleural effusion; the ventricles are normal",),
    ],
)
def test_positions_are_still_swapped(caption: str) -> None:
    assert names_side(caption)
    assert can_swap(caption)


@pytest.mark.parametrize(
    "caption", ["CT OF THE LUNGS AND RIBS", "LIVER LESION", "ROI in the LUMEN", "vitamin D level"]
)
def test_words_in_capitals_are_no_sides(caption: str) -> None:
    assert not names_side(caption)
