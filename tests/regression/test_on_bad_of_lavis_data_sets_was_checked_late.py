"""``on_bad`` and ``max_bad`` of a data set of LAVIS were looked at only when it was built.

That is after the model, and one mistake at a time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.run_config import resolve_run_config

PROCESSOR = "vis_processor: {train: {name: msmedcap_image_train}}"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("on_bad: ignore", ["on_bad is 'ignore'; expected one of skip, error"]),
        ("on_bad: Skip", ["did you mean skip?"]),
        ("max_bad: 2", ["max_bad is 2; expected at most 1"]),
        ("max_bad: true", ["max_bad is true; expected a number"]),
        ("on_bad: 1, max_bad: -0.5", ["vg_caption.on_bad is 1", "vg_caption.max_bad is -0.5"]),
        ("on_bad: error, max_bad: 0.5", []),
    ],
)
def test_before_anything_is_built(
    keys: str, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    section = f"datasets.vg_caption={{domain: general, {PROCESSOR}, {keys}}}"
    options = [section, "run.device=cpu"]
    _, problems = resolve_run_config("projects/msmedcap/pretrain_mixed.yaml", options)
    about = [text for text in problems if "_bad" in text]
    assert len(about) == len(told)
    assert all(part in text for part, text in zip(told, about))
