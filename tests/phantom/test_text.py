from __future__ import annotations

import itertools

import pytest

from lavis_msmedcap.phantom import DEFAULT_PROMPT, general_text, medical_text, parse_facets

COUNT = 1500


@pytest.mark.parametrize("source", [medical_text, general_text])
def test_documents_are_lines_and_streams_are_stable(source) -> None:
    documents = list(source(7, 50))
    assert all(text.endswith("\n") and text.count("\n") == 1 for text in documents)
    assert documents == list(itertools.islice(source(7, COUNT), 50))
    assert documents != list(source(8, 50))


@pytest.mark.parametrize("source", [medical_text, general_text])
def test_most_documents_put_notes_before_the_caption(source) -> None:
    documents = list(source(0, COUNT))
    with_prompt = [text for text in documents if DEFAULT_PROMPT in text]
    with_notes = [text for text in with_prompt if not text.startswith(DEFAULT_PROMPT)]
    assert 0.82 < len(with_prompt) / COUNT < 0.88
    assert 0.66 < len(with_notes) / COUNT < 0.74


@pytest.mark.parametrize("source", [medical_text, general_text])
def test_transform_touches_the_caption_only(source) -> None:
    for raw, marked in zip(source(0, 200), source(0, 200, transform=lambda text: f"<{text}>")):
        head, prompt, caption = raw.rpartition(f"{DEFAULT_PROMPT} ")
        assert marked == f"{head}{prompt}<{caption[:-1]}>\n"


def test_prompt_can_be_chosen() -> None:
    documents = list(medical_text(0, 100, prompt="a scan of"))
    assert not any(DEFAULT_PROMPT in text for text in documents)
    assert sum("a scan of" in text for text in documents) > 70


def test_notes_agree_with_the_caption() -> None:
    sides = positions = 0
    for text in medical_text(0, COUNT):
        notes, prompt, caption = text.partition(f"{DEFAULT_PROMPT} ")
        if not prompt or not notes:
            continue
        noted, said = parse_facets(notes), parse_facets(caption)
        assert noted.side in (None, said.side)
        assert noted.position in (None, said.position)
        assert noted.size_mm in (None, said.size_mm)
        assert noted.modality in (None, said.modality)
        sides += noted.side is not None
        positions += noted.position is not None
    assert min(sides, positions) > COUNT / 3


def test_facts_are_sometimes_dropped() -> None:
    documents = [text for text in medical_text(0, COUNT) if text.startswith(("Modality:", "Side:"))]
    assert any("Modality:" not in text for text in documents)
