"""What ``data convert`` printed did not read the shards of a run that it had just written.

Images of both domains, or of two tables with equal file names, cannot be one data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_check_trees import picture, put

from lavis_msmedcap.cli import main
from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.run_data import data_of


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on two tables whose images have the same names, one of them of general images."""
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    sections = []
    for ward, domain in (("ward", "medical"), ("ward-b", "medical"), ("street", "general")):
        rows = ["image,caption,split"]
        for number, split in enumerate(["train", "train", "train", "val"]):
            put(tmp_path / ward / f"{number}.png", picture(number))
            rows.append(f"{number}.png,Picture {number} of {ward}.,{split}")
        table = put(tmp_path / ward / "t.csv", "\n".join(rows) + "\n")
        sections.append(
            f'  {ward}: {{builder: caption_table, type: "${{scale}}", domain: {domain}, '
            f"build_info: {{table: {table}}}, max_samples: {{train: 2}}}}"
        )
    text = f"""
scale: paper
model: {{arch: msmedcap, model_type: "${{scale}}"}}
datasets:
{chr(10).join(sections)}
run: {{task: medical_captioning, runner: runner_msmedcap, output_dir: {tmp_path}/run,
      train_splits: [train], valid_splits: [val], test_splits: []}}
"""
    return put(tmp_path / "run.yaml", text)


def facts(records: list[MedCapRecord]) -> set[tuple[Any, ...]]:
    return {(r.source, r.image_id, r.captions, r.split, r.domain) for r in records}


@pytest.mark.parametrize("samples", ["1", "1000"])
def test_the_printed_configuration_reads_them(
    config: Path, tmp_path: Path, capsys: Any, samples: str
) -> None:
    command = ["data", "convert", str(config), str(tmp_path / "shards"), "--to", "webdataset"]
    assert main([*command, "--samples-per-shard", samples]) == 0
    told = capsys.readouterr().out
    put(tmp_path / "again.yaml", told[told.index("base:") :])
    before, after = data_of(str(config)), data_of(str(tmp_path / "again.yaml"))
    assert len(before.records) == 9
    assert facts(after.records) == facts(before.records)
    assert [report.name for report in after.reports] == [
        "ward_shards",
        "ward-b_shards",
        "street_shards",
    ]
