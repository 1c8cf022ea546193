from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavis_msmedcap.evaluation.metrics.java import coco_folder, java_tokenize
from lavis_msmedcap.evaluation.metrics.tokenize import sanitize, tokenize

HARD_CAPTIONS = Path(__file__).with_name("captions.txt")
ENOUGH = 0.95


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A Left lung, normal.", "a left lung normal"),
        ("CT (arrow) of [1] {x}", "ct -lrb- arrow -rrb- of -lsb- 1 -rsb- -lcb- x -rcb-"),
        ("a 3.5cm mass", "a 3.5 cm mass"),
        ("a 3cm mass", "a 3cm mass"),
        ("1,000 of 3,5; 12:30", "1,000 of 3,5 12:30"),
        ("-5 to +5 HU", "-5 to +5 hu"),
        ("the patient's lungs don't", "the patient 's lungs do n't"),
        ("the patients' lungs", "the patients lungs"),
        ("I cannot, can't", "i can not ca n't"),
        ("image.Arrow shows", "image.arrow shows"),
        ("T1-weighted L4/L5 T2- w/o", "t1-weighted l4/l5 t2 w/o"),
        ("Fig. 2 and this fig.", "fig. 2 and this fig"),
        ("in panel C. The mass", "in panel c the mass"),
        ("vitamin C. mass", "vitamin c. mass"),
        ("et al. vs. approx. 5", "et al. vs. approx 5"),
        ("a large mass.", "a large mass"),
        ("5%\u201310 % \u2014 x--y", "5 % 10 % x y"),
        ("“quoted” «text» 'here'", "quoted text here"),
        ("½ £5 €5", "1/2 # 5 $ 5"),
        ("H&E, A & B &amp; C", "h&e a & b & c"),
        ("why?! oh!! no? yes!", "why ?! oh !! no yes"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zero width"),
        ("M\u00fcller \u03b1-helix", "m\u00fcller \u03b1-helix"),
        ("cm\u00b3 5\u00b0C", "cm \u00b3 5 \u00b0 c"),
        ("a@b.org http://x.org/y, x", "a@b.org http://x.org/y x"),
        ("", ""),
        (" . , ", ""),
    ],
)
def test_tokens_written_by_hand(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens


@pytest.mark.parametrize(
    "mark", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
)
def test_every_line_break_becomes_one_space(mark: str) -> None:
    assert sanitize(f"left{mark}lung") == "left lung"
    assert tokenize(f"left{mark}lung") == "left lung"


def test_field_marks_and_surrogates_do_not_survive() -> None:
    assert sanitize("a|||b||||c") == "a b c"
    assert sanitize("a || b | c") == "a || b | c"
    assert sanitize("a\ud800b") == "a\ufffdb"


def test_letters_are_composed() -> None:
    assert sanitize("Mu\u0308ller") == "M\u00fcller"


@given(st.text(max_size=80))
def test_any_text_gives_clean_tokens(text: str) -> None:
    tokens = tokenize(text)
    assert tokens == " ".join(tokens.split())
    assert len(sanitize(text).splitlines()) <= 1
    assert "|||" not in sanitize(text)


def test_long_text_without_spaces_takes_no_time() -> None:
    assert len(tokenize("a,b(c)" * 2000).split()) == 10000


def varied_captions() -> list[str]:
    """300 captions: those of the file, and seeded mixtures of what medical captions are made of."""
    openers = [
        "Axial CT",
        "Coronal T2-weighted MRI",
        "Chest x-ray (PA)",
        "US image",
        "Fig. 1A. MRI",
    ]
    subjects = ["of the brain", "at the L4/L5 level", "of a 45-year-old man", "in patient no. 3"]
    findings = ["a 3.5cm mass", 'a "target" sign', "multiple nodules (arrows)", "Crohn's disease"]
    places = ["in the left upper lobe", "of S1\u2013S2", "(*), 2\u00d73 cm,", "at 5 o'clock"]
    tails = [".", " [12].", ";normal otherwise.", " vs. control (p<0.05).", " - see text", "..."]
    combinations = list(itertools.product(openers, subjects, findings, places, tails))
    mixed = [
        f"{opener} {subject} showing {finding} {place}{tail}"
        for opener, subject, finding, place, tail in combinations
    ]
    random.Random(7).shuffle(mixed)
    hard = HARD_CAPTIONS.read_text(encoding="utf-8").split("\n")[:-1]
    return [*hard, *mixed[: 300 - len(hard)]]


@pytest.mark.parity
@pytest.mark.skipif(shutil.which("java") is None, reason="no java on the PATH")
def test_tokens_are_those_of_the_java_tokenizer() -> None:
    captions = varied_captions()
    ours = [tokenize(caption) for caption in captions]
    theirs = java_tokenize(captions)
    different = [pair for pair in zip(ours, theirs) if pair[0] != pair[1]]
    assert len(captions) == 300
    assert 1 - len(different) / len(captions) >= ENOUGH, different


@pytest.mark.parity
@pytest.mark.skipif(shutil.which("java") is None, reason="no java on the PATH")
def test_the_java_tokenizer_is_that_of_pycocoevalcap() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    if not os.access(coco_folder("tokenizer"), os.W_OK):
        pytest.skip("pycocoevalcap writes its input next to its code, which is read-only here")
    captions = [sanitize(caption) for caption in varied_captions()]
    tokens = PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(captions)})
    # a non-breaking space inside a Java token separates words for every metric but ROUGE
    assert [" ".join(tokens[i][0].split()) for i in range(len(captions))] == java_tokenize(captions)
