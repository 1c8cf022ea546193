from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.rouge.rouge import my_lcs

from lavis_msmedcap.evaluation.metrics.corpus import build_corpus
from lavis_msmedcap.evaluation.metrics.rouge import lcs_length, rouge_l

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=70)


@given(WORDS, WORDS)
def test_bit_counting_equals_the_table_of_dynamic_programming(
    first: list[str], second: list[str]
) -> None:
    assert lcs_length(first, second) == my_lcs(first, second)


def test_empty_texts() -> None:
    values = rouge_l(build_corpus(["", "x", ""], [["a"], [""], [""]])).per_image["ROUGE_L"]
    assert values == [0.0, 0.0, 1.0]  # nothing equals nothing, as in the original
