from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The helpers of tiny.py, loaded by path because tests are not a package."""
    path = Path(__file__).with_name("tiny.py")
    spec = importlib.util.spec_from_file_location("msmedcap_tiny_runner_helpers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look the module up by name
    spec.loader.exec_module(module)
    return module
