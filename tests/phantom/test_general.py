from __future__ import annotations

import numpy as np
import pytest

from lavis_msmedcap.phantom.general import render_general
from lavis_msmedcap.phantom.general_facts import (
    COLOURS,
    RELATIONS,
    SHAPES,
    GeneralFacts,
    Thing,
    general_captions,
    sample_general_facts,
)
from lavis_msmedcap.phantom.seeding import rng_for


def coloured(facts: GeneralFacts, colour: str, index: int = 0) -> np.ndarray:
    """Where the picture has about the colour."""
    image = render_general(facts, rng_for(2, "test", index))
    gap = np.asarray(image, dtype=float) - np.asarray(COLOURS[colour], dtype=float)
    return np.abs(gap).max(axis=2) < 35


@pytest.mark.parametrize("relation", RELATIONS)
def test_relation_is_drawn(relation: str) -> None:
    things = (Thing("red", "circle", "small"), Thing("blue", "square", "small"))
    facts = GeneralFacts("pair", "white", "plain", things, relation, 1)
    first = np.argwhere(coloured(facts, "red"))
    second = np.argwhere(coloured(facts, "blue"))
    down, right = second.mean(axis=0) - first.mean(axis=0)
    if relation == "inside":
        assert (first.min(axis=0) > second.min(axis=0)).all()
        assert (first.max(axis=0) < second.max(axis=0)).all()
    else:
        expected = {"left of": right, "right of": -right, "above": down, "below": -down}[relation]
        assert expected > 30


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_count_is_drawn(count: int) -> None:
    thing = Thing("black", "square", "small")
    one = GeneralFacts("group", "white", "plain", (thing,), None, count)
    # every object covers about the same area, so a group covers a multiple of one of them
    area = coloured(one, "black").sum()
    radius_squared = area / count / (1.6**2)
    shorter = min(coloured(one, "black").shape)
    assert 0.09 < np.sqrt(radius_squared) / shorter < 0.13


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_visible(shape: str) -> None:
    facts = GeneralFacts("single", "blue", "plain", (Thing("yellow", shape, "large"),), None, 1)
    share = coloured(facts, "yellow").mean()
    assert 0.04 < share < 0.5


def test_sizes_differ() -> None:
    def share(size: str) -> float:
        thing = Thing("red", "circle", size)
        return coloured(GeneralFacts("single", "white", "plain", (thing,), None, 1), "red").mean()

    assert share("large") > 3 * share("small")


def test_five_different_captions_that_name_what_is_shown() -> None:
    for index in range(300):
        facts = sample_general_facts(rng_for(0, "facts", index))
        captions = general_captions(facts, rng_for(0, "captions", index))
        assert len(set(captions)) == 5
        for thing in facts.things:
            assert all(thing.colour in text.lower() for text in captions)
            assert all(thing.shape in text.lower() for text in captions)


def test_things_never_share_a_colour_with_the_background() -> None:
    for index in range(300):
        facts = sample_general_facts(rng_for(0, "facts", index))
        colours = [facts.background, *(thing.colour for thing in facts.things)]
        assert len(set(colours)) == len(colours)
