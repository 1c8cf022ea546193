from __future__ import annotations

import pytest

from lavis_msmedcap.common.errors import ArgumentError, NotFiniteOutputError, told_as


def test_an_argument_is_told_under_the_names_of_every_caller() -> None:
    problem = ArgumentError("{max_new_tokens} is 0, {num_beams} 2")
    assert str(problem) == "max_new_tokens is 0, num_beams 2"
    with (
        pytest.raises(ArgumentError) as caught,
        told_as({"max_length": "run.max_len", "num_beams": "run.num_beams"}),
        told_as({"max_new_tokens": "max_length"}),
    ):
        raise problem
    assert str(caught.value) == "run.max_len is 0, run.num_beams 2"


def test_images_are_told_by_index_or_label() -> None:
    assert str(NotFiniteOutputError([1, 3])).startswith("image 1, 3 of the batch (counted from 0):")
    assert str(NotFiniteOutputError([1], ["b.png"])).startswith("image b.png:")
