"""Counted word by word, texts have as many tokens as the models read."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.llm import load_tokenizer
from lavis_msmedcap.models.llm_text import caption_inputs
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.models.text_lengths import TextLength

OPT = load_tokenizer(package_path("assets/demo/opt"))
BERT = BertTokenizer(str(package_path("assets/demo/qformer_tokenizer/vocab.txt")))
TEXTS = st.text(alphabet="aeinost CTLR.,:;()[]-/0123456789%\u00b0\u00b5\u00e9\n")


class Model:
    """What `text_length` uses of the models."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


@pytest.mark.parametrize("prompt", ["", "a photo of", "Question: Describe the image. Answer:"])
@given(text=TEXTS)
def test_stage_2(prompt: str, text: str) -> None:
    length = MSMedCap.text_length(Model(opt_tokenizer=OPT, prompt=prompt))
    read = caption_inputs(OPT, [prompt], [text], max_txt_len=10**6).input_ids.shape[1]
    assert length(text) == read <= length.at_most(text)


@given(text=TEXTS)
def test_stage_1(text: str) -> None:
    length = Blip2DualQformer.text_length(Model(tokenizer=BERT))
    assert length(text) == len(BERT(text).input_ids) <= length.at_most(text)


def test_each_word_is_tokenized_once() -> None:
    seen: list[str] = []

    def tokenize(word: str) -> str:
        seen.append(word)
        return word

    length = TextLength(partial(tokenize), extra=3, blank=" ", first_blank="")
    assert [length("ab cd cd"), length("cd ab"), length("")] == [3 + 2 + 3 + 3, 3 + 2 + 3, 3]
    assert seen == ["ab", " cd", "cd", " ab"]
