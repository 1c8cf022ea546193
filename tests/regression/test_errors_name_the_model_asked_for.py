"""Errors of ``msmedcap_image_text_matching`` spoke of ``blip2_dual_qformer``."""

from __future__ import annotations

from pathlib import Path

import pytest
from lavis.models import load_model

from lavis_msmedcap.common.errors import ConfigError

NAMES = ("blip2_dual_qformer", "msmedcap", "msmedcap_image_text_matching")


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_of_a_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"problems in {name} \(paper\):"):
        load_model(name, "paper")
