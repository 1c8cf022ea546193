"""What ``data convert`` printed asked for ${scale}, which a configuration without scales lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.data_convert.plan import ShardSettings, plan_shards
from lavis_msmedcap.data_convert.sections import shard_sections
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.run_config import resolve_run_config

RUN = """
model: {arch: msmedcap, model_type: paper}
run: {task: medical_captioning, runner: runner_msmedcap}
"""


@pytest.mark.parametrize(("scale", "kind"), [("", "default"), ("scale: demo", "demo")])
def test_they_fit_both(tmp_path: Path, scale: str, kind: str) -> None:
    record = MedCapRecord("/gone/a.png", ("CT.",), "i", "train", None, "ward", "medical")
    lines = shard_sections(plan_shards([record], ShardSettings()), tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text("\n".join([scale, RUN, *lines]))
    config, problems = resolve_run_config(str(path))
    assert not [problem for problem in problems if "ward_shards.type" in problem]
    assert config.to_dict()["datasets"]["ward_shards"]["type"] == kind
