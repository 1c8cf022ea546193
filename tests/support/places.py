"""A machine on which no weights and no data lie."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def empty_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory with an empty cache in it, and no folder of weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LAVIS_MSMEDCAP_WEIGHTS", raising=False)
