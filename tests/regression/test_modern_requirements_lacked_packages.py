"""``requirements/modern.txt`` is installed without dependencies, and two imports were not in it."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from pathlib import Path

from packaging.requirements import Requirement

from lavis_msmedcap.doctor_packages import modern_lines

ROOT = Path(__file__).resolve().parent.parent.parent
# LAVIS itself is installed beside the list; spacy is optional there
ELSEWHERE = {"salesforce-lavis", "spacy"}
DISTRIBUTIONS = {
    "PIL": "Pillow",
    "lavis": "salesforce-lavis",
    "segment_anything": "segment-anything",
    "yaml": "pyyaml",
}


def modern_names() -> set[str]:
    return {Requirement(line).name for line in modern_lines()}


def test_it_lists_all_that_an_ordinary_installation_requires() -> None:
    (setup,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    )
    (listed,) = (word.value for word in setup.keywords if word.arg == "install_requires")
    ordinary = {Requirement(line).name for line in ast.literal_eval(listed)}
    assert sorted(ordinary - ELSEWHERE - modern_names()) == []


def test_it_lists_all_that_is_imported_when_the_models_register() -> None:
    imported = set()
    for path in (ROOT / "lavis_msmedcap").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            imported |= {name.partition(".")[0] for name in names}
    foreign = {name for name in imported - {"lavis_msmedcap"} if not is_standard(name)}
    assert "requests" in foreign
    needed = {DISTRIBUTIONS.get(name, name) for name in foreign}
    assert sorted(needed - ELSEWHERE - modern_names()) == []


def is_standard(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or spec.origin in ("built-in", "frozen"):
        return spec is not None
    origin = Path(spec.origin)
    standard = Path(sysconfig.get_path("stdlib"))
    return standard in origin.parents and "site-packages" not in origin.parts
