"""The doctor is asked where something is broken, so it must not break on that itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lavis_msmedcap.models.llm_files import missing_llm_files

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"filelock", "torch", "omegaconf", "requests"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from lavis_msmedcap import cli
sys.exit(cli.main(["doctor"]))
"""


def test_packages_that_are_absent() -> None:
    command = [sys.executable, "-c", WITHOUT]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "this machine:" in ran.stdout
    for what in ("torchvision", "GPU", "disk"):
        assert f"MISSING  {what}: cannot be checked (No module named" in ran.stdout


def test_an_index_that_names_no_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": 5}}))
    assert missing_llm_files(tmp_path) == ["config.json"]
