"""Modules that are no part of a package: tools, and helpers beside tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_module(path: Path) -> ModuleType:
    """Executes a Python file as a module of its own, under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"msmedcap_by_path_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look the module up by name
    spec.loader.exec_module(module)
    return module
