from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lavis_msmedcap.phantom.medical.facts import ORGANS, POSITIONS, SIDES, Lesion, MedicalFacts
from lavis_msmedcap.phantom.medical.render import MedicalImage, render
from lavis_msmedcap.phantom.seeding import rng_for

LESION = Lesion("left", "upper", 20, "round", bright=True, rim=False, arrow=False)
IMAGED = [
    (modality, organ, sequence)
    for modality, organs in ORGANS.items()
    for organ in organs
    for sequence in (("t1", "t2") if modality == "mri" else (None,))
]


def draw(facts: MedicalFacts, index: int = 0) -> MedicalImage:
    return render(facts, rng_for(5, "test", index))


def around(mask: np.ndarray) -> np.ndarray:
    """A ring of a few pixels at a small distance from the lesion."""
    near = Image.fromarray(mask).filter(ImageFilter.MaxFilter(5))
    far = near.filter(ImageFilter.MaxFilter(7))
    return (np.asarray(far) > 0) & (np.asarray(near) == 0)


@pytest.mark.parametrize(
    ("modality", "organ", "sequence"), IMAGED, ids=[f"{m}-{o.name}-{s}" for m, o, s in IMAGED]
)
def test_lesion_is_where_and_what_the_facts_say(modality, organ, sequence) -> None:
    for index, (side, position, bright) in enumerate(
        itertools.product(SIDES, POSITIONS, (True, False))
    ):
        lesion = replace(LESION, side=side, position=position, bright=bright)
        image = draw(MedicalFacts(modality, organ, sequence, lesion), index)
        inside = image.mask > 0
        rows, columns = np.nonzero(inside)
        height, width = inside.shape
        # radiological convention: the patient's left is on the image's right
        assert (columns.mean() > width / 2) == (side == "left")
        third = POSITIONS.index(position)
        assert third / 3 - 0.06 < rows.mean() / height < (third + 1) / 3 + 0.06
        pixels = image.pixels.astype(float)
        difference = pixels[inside].mean() - pixels[around(image.mask)].mean()
        assert (difference > 30) if bright else (difference < -30)


@pytest.mark.parametrize("size_mm", [8, 12, 20, 35])
def test_drawn_size_follows_the_millimetres(size_mm: int) -> None:
    lesion = replace(LESION, size_mm=size_mm, position="middle")
    mask = draw(MedicalFacts("ct", ORGANS["ct"][0], None, lesion)).mask > 0
    diameter = 2 * np.sqrt(mask.sum() / np.pi)
    assert diameter == pytest.approx(size_mm * min(mask.shape) / 150, abs=1.0)


def test_shapes_differ_in_outline() -> None:
    def roughness(shape: str) -> float:
        facts = MedicalFacts("ct", ORGANS["ct"][0], None, replace(LESION, size_mm=30, shape=shape))
        mask = draw(facts).mask > 0
        edges = np.count_nonzero(mask[1:] != mask[:-1])
        edges += np.count_nonzero(mask[:, 1:] != mask[:, :-1])
        return edges**2 / mask.sum()

    assert roughness("round") < roughness("lobulated") < roughness("spiculated")


def test_normal_image_has_no_mask() -> None:
    assert draw(MedicalFacts("ct", ORGANS["ct"][1], None, None)).mask is None


def test_rim_is_brighter_than_the_dark_lesion_and_what_is_around() -> None:
    facts = MedicalFacts(
        "ct", ORGANS["ct"][0], None, replace(LESION, bright=False, rim=True, size_mm=30)
    )
    image = draw(facts)
    core = np.asarray(Image.fromarray(image.mask).filter(ImageFilter.MinFilter(5))) > 0
    border = (image.mask > 0) & ~core
    assert image.pixels[border].mean() > image.pixels[core].mean() + 60


def test_arrow_is_drawn_beside_the_lesion() -> None:
    facts = MedicalFacts("ct", ORGANS["ct"][0], None, LESION)
    with_arrow = replace(facts, lesion=replace(LESION, arrow=True))
    plain, marked = draw(facts), draw(with_arrow)
    changed = plain.pixels != marked.pixels
    assert np.count_nonzero(changed & (marked.pixels == 255)) > 20
    assert not changed[plain.mask > 0].any()


def test_mri_sequences_swap_fluid_and_white_matter() -> None:
    brain = ORGANS["mri"][0]
    t1 = draw(MedicalFacts("mri", brain, "t1", None)).pixels.astype(int)
    t2 = draw(MedicalFacts("mri", brain, "t2", None)).pixels.astype(int)
    height, width = t1.shape
    middle = (
        slice(int(0.4 * height), int(0.52 * height)),
        slice(int(0.4 * width), int(0.6 * width)),
    )
    assert t1[middle].min() < 60
    assert t2[middle].max() > 200


def test_ultrasound_is_a_sector_on_black() -> None:
    pixels = draw(MedicalFacts("ultrasound", ORGANS["ultrasound"][0], None, None)).pixels
    assert pixels[:20, :10].max() == 0
    assert pixels[:20, -10:].max() == 0
    assert pixels[-3:, :3].max() == 0
    assert pixels[pixels.shape[0] // 2, pixels.shape[1] // 3 : -pixels.shape[1] // 3].mean() > 40


def test_same_stream_same_pixels() -> None:
    facts = MedicalFacts("radiograph", ORGANS["radiograph"][0], None, LESION)
    assert np.array_equal(draw(facts, 4).pixels, draw(facts, 4).pixels)
    assert not np.array_equal(draw(facts, 4).pixels[:100], draw(facts, 5).pixels[:100])


def test_panel_letter_is_stamped() -> None:
    facts = MedicalFacts("ct", ORGANS["ct"][0], None, None)
    plain = render(facts, rng_for(5, "test", 0)).pixels
    stamped = render(facts, rng_for(5, "test", 0), panel="A").pixels
    corner = stamped[-19:-5, 5:15]
    assert np.count_nonzero(corner == 255) > 40
    assert np.array_equal(stamped[:-22], plain[:-22])
