from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from pathlib import Path

import pytest

from lavis_msmedcap.evaluation.metrics import meteor as meteor_module
from lavis_msmedcap.evaluation.metrics.corpus import MetricSkippedError, build_corpus
from lavis_msmedcap.evaluation.metrics.java import JavaError, java_tokenize
from lavis_msmedcap.evaluation.metrics.meteor import meteor

CORPUS = build_corpus(["left lung", "no mass"], [["left lung"], ["a mass", "the mass"]])

# Speaks METEOR's protocol: a line of statistics per SCORE, then n + 1 scores per EVAL.
ANSWERING = """
import sys
for line in sys.stdin:
    parts = line.strip().split(" ||| ")
    if parts[0] == "SCORE":
        print(len(parts) - 2, flush=True)
    else:
        for value in parts[1:]:
            print(f"{int(value) / 10}".replace(".", POINT), flush=True)
        print("0.5".replace(".", POINT), flush=True)
"""


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns a function that puts a program named ``java`` on the PATH."""

    def install(code: str) -> None:
        program = tmp_path / "java"
        program.write_text(f"#!{sys.executable}\n{code}", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    return install


def test_is_skipped_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MetricSkippedError, match="no 'java' on the PATH"), meteor():
        pass


def test_reads_one_line_of_statistics_per_caption(fake_java) -> None:
    fake_java("POINT = '.'" + ANSWERING)
    with meteor() as metric:
        result = metric(CORPUS)
    assert result.scores == {"METEOR": 0.5}
    assert result.per_image == {"METEOR": [0.1, 0.2]}


def test_scores_parts_of_a_corpus_with_one_start(fake_java) -> None:
    fake_java("POINT = '.'" + ANSWERING)
    with meteor() as metric:
        metric(CORPUS)
        assert metric(CORPUS.subset([1])).per_image == {"METEOR": [0.2]}


def test_a_program_that_hangs_is_stopped(fake_java, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java("import time\ntime.sleep(60)")
    monkeypatch.setattr(meteor_module, "_START_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(JavaError, match="no answer within"), meteor() as metric:
        metric(CORPUS)
    assert time.monotonic() - started < 20


def test_a_program_that_dies_is_quoted(fake_java) -> None:
    fake_java("import sys\nsys.stderr.write('out of memory')\nsys.exit(3)")
    with pytest.raises(JavaError, match="out of memory"), meteor() as metric:
        metric(CORPUS)


def test_a_decimal_comma_is_an_error_and_no_deadlock(fake_java) -> None:
    fake_java("POINT = ','" + ANSWERING)
    with pytest.raises(JavaError, match="0,1"), meteor() as metric:
        metric(CORPUS)


def test_the_java_tokenizer_must_return_one_line_per_caption(fake_java) -> None:
    fake_java("import sys\nsys.stdin.read()\nprint('only one')")
    with pytest.raises(JavaError, match="1 lines for 2 captions"):
        java_tokenize(["a", "b"])


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.skipif(shutil.which("java") is None, reason="no java on the PATH")
def test_scores_are_those_of_pycocoevalcap() -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    corpus = build_corpus(
        ["a round mass in the left lung", "a tumour of the liver", "", "normal"],
        [["round lesion in the left lung"], ["liver tumours", "hepatic mass"], ["x"], ["normal"]],
    )
    with meteor() as metric:
        ours = metric(corpus)
    value, values = Meteor().compute_score(
        {i: list(group) for i, group in enumerate(corpus.reference_tokens)},
        {i: [text] for i, text in enumerate(corpus.caption_tokens)},
    )
    assert ours.scores["METEOR"] == value
    assert ours.per_image["METEOR"] == values
