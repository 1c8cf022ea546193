from __future__ import annotations

import re
from dataclasses import asdict

import pytest

from lavis_msmedcap.phantom.facets import parse_facets
from lavis_msmedcap.phantom.medical.captions import (
    choose_panel,
    medicat_caption,
    roco_caption,
)
from lavis_msmedcap.phantom.medical.facts import MedicalFacts, sample_facts
from lavis_msmedcap.phantom.seeding import rng_for

COUNT = 3000


@pytest.fixture(scope="module")
def cases() -> list[tuple[MedicalFacts, str]]:
    pairs = []
    for index in range(COUNT):
        rng = rng_for(11, "test", index)
        facts = sample_facts(rng)
        panel = choose_panel(rng, 0.1)
        if index % 2:
            pairs.append((facts, roco_caption(facts, rng, panel)))
        else:
            pairs.append((facts, medicat_caption(facts, rng, 1 + index % 4, panel)))
    return pairs


def expected(facts: MedicalFacts) -> dict[str, object]:
    stated = facts.as_dict()
    for flag in ("rim", "arrow"):
        stated[flag] = stated[flag] or None
    return stated


def bare(text: str) -> str:
    """Lower case without the punctuation that LAVIS' caption processor deletes."""
    return re.sub(r"\s{2,}", " ", re.sub(r"([.!\"()*#:;~])", " ", text.lower()))


@pytest.mark.parametrize("process", [str, str.lower, bare], ids=["raw", "lower", "bare"])
def test_every_fact_is_read_back(cases, process) -> None:
    wrong = [
        (caption, stated, asdict(parse_facets(process(caption))))
        for facts, caption in cases
        if asdict(parse_facets(process(caption))) != (stated := expected(facts))
    ]
    assert wrong == []


def test_side_is_said_exactly_once(cases) -> None:
    for facts, caption in cases:
        sides = re.findall(r"\b(?:left|right)\b", caption)
        assert sides == ([facts.lesion.side] if facts.lesion else [])


def test_lengths_and_vocabulary(cases) -> None:
    lengths = [len(caption.split()) for _, caption in cases]
    assert sum(10 <= length <= 28 for length in lengths) / COUNT > 0.95
    words = {word for _, caption in cases for word in bare(caption).split()}
    assert 100 < len(words) < 300


def test_one_template_leads(cases) -> None:
    with_lesion = [caption for facts, caption in cases if facts.lesion]
    leading = sum(" showing a" in caption for caption in with_lesion) / len(with_lesion)
    assert 0.56 < leading < 0.64


def test_rates_of_facts(cases) -> None:
    lesions = [facts.lesion for facts, _ in cases if facts.lesion]
    assert 0.82 < len(lesions) / COUNT < 0.88
    assert 0.47 < sum(lesion.side == "left" for lesion in lesions) / len(lesions) < 0.53
    assert {lesion.position for lesion in lesions} == {"upper", "middle", "lower"}
    assert all(lesion.shape in ("round", "oval") for lesion in lesions if lesion.size_mm < 12)


def test_medicat_captions_begin_with_their_figure_number() -> None:
    facts = sample_facts(rng_for(0, "x", 0))
    for index in range(40):
        text = medicat_caption(facts, rng_for(0, "y", index), 2, "A")
        assert re.match(r"(Figure|FIGURE|Fig\.) 2[.:] \(A\) [A-Z]", text)
