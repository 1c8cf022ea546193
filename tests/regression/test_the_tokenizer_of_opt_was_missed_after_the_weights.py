"""A folder without OPT's tokenizer_config.json was refused only once the LLM had been read."""

from __future__ import annotations

import shutil
from pathlib import Path

from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.llm_build import llm_needs
from lavis_msmedcap.models.weight_files import problems

DEMO = package_path("assets/demo")


def test_all_files_are_asked_for_at_once(tmp_path: Path) -> None:
    [folder] = {path.parent for path in DEMO.rglob("merges.txt")}
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(folder / name, tmp_path)
    weights = "package:assets/demo/" + folder.relative_to(DEMO).as_posix()
    [told] = problems(llm_needs({"weights": weights, "tokenizer": str(tmp_path)}))
    assert told.startswith(f"model.llm.tokenizer: {tmp_path} lacks tokenizer_config.json")
