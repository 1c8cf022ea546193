from __future__ import annotations

import json
import subprocess
from pathlib import Path

import torch

from lavis_msmedcap.runners.environment import environment_text, revision


def test_versions_are_the_installed_ones() -> None:
    facts = json.loads(environment_text())
    assert facts["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts["packages"]["salesforce-lavis"] == "1.0.2"
    assert facts["processes"] == 1


def test_only_named_variables_are_written_down(monkeypatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "do-not-write")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    text = environment_text()
    assert "do-not-write" not in text
    assert json.loads(text)["variables"]["OMP_NUM_THREADS"] == "1"


def test_revision_tells_changed_files(tmp_path: Path) -> None:
    assert revision(tmp_path / "nowhere") is None
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-qm", "one"], cwd=tmp_path, check=True)
    clean = revision(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "file").write_text("2")
    assert revision(tmp_path) == f"{clean}-dirty"
