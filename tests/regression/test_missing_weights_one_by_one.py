"""``load_model`` told the first missing file only, and of OPT's folder a path that nobody named."""

from __future__ import annotations

from pathlib import Path

import pytest
from lavis.models import load_model

from lavis_msmedcap.common.errors import ConfigError


def test_all_of_them_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_model("msmedcap", "paper")
    assert len(caught.value.problems) >= 6
    assert f"model.llm.weights: opt-2.7b is in none of {tmp_path}/weights, " in str(caught.value)
