from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from by_path import load_module


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The helpers of tiny.py, loaded by path because tests are not a package."""
    return load_module(Path(__file__).with_name("tiny.py"))
