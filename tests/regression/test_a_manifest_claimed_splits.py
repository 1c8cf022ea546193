"""A manifest of a table without splits said "train" on every row: training had no val and test."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_check_trees import jpeg_bytes, leaking_trees, manifest_lines, picture, put, roco
from omegaconf import OmegaConf

from lavis_msmedcap import cli
from lavis_msmedcap.datasets.builders.table import CaptionTableBuilder
from lavis_msmedcap.datasets.readers.report import ReadReport


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIS_MSMEDCAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lavis_msmedcap.data_check.scan._cores", lambda: 1)
    monkeypatch.chdir(tmp_path)


def check(*arguments: object) -> int:
    return cli.main(["data", "check", *map(str, arguments)])


def own_table(folder: Path, suffix: str = ".csv") -> Path:
    """Fourteen images, two of each of four patients and six of nobody known."""
    rows = []
    for i in range(14):
        put(folder / f"{i}.png", picture(i))
        rows.append(f"{i}.png,CT number {i} of the chest,{f'p{i // 2}' if i < 8 else ''}\n")
    return put(folder / f"captions{suffix}", "image,caption,patient_id\n" + "".join(rows))


def trained(table: Path) -> dict[str, set[str]]:
    config = OmegaConf.load(CaptionTableBuilder.default_config_path("demo")).datasets.caption_table
    config.build_info = {"table": str(table)}
    records = CaptionTableBuilder(config).read_records(ReadReport("mine"))
    return {split: {r.image for r in found} for split, found in records.items()}


def test_training_draws_the_shares_of_the_table_itself(tmp_path, capsys):
    table = own_table(tmp_path / "mine")
    assert check(table, "--fix", "clean.jsonl") == 0
    assert "  without splits, as the data tell none: training draws shares\n" in (
        capsys.readouterr().out
    )
    drawn = trained(tmp_path / "clean.jsonl")
    assert set(drawn) == {"train", "val", "test"}
    assert drawn == trained(table)
    # and a manifest of that manifest
    assert check("clean.jsonl", "--fix", "again.jsonl") == 0
    assert "a clean manifest of --fix" in capsys.readouterr().out
    assert trained(tmp_path / "again.jsonl") == drawn


def test_a_list_without_a_split_in_its_name(tmp_path):
    put(tmp_path / "a.png", picture(1))
    put(tmp_path / "captions.json", '[{"image": "a.png", "caption": "A scan of the chest."}]')
    assert check("captions.json", "--fix", "clean.jsonl") == 0
    assert "split" not in manifest_lines(tmp_path / "clean.jsonl")[0]
    (tmp_path / "captions.json").rename(tmp_path / "captions_test.json")
    assert check("captions_test.json", "--fix", "test.jsonl") == 0
    assert manifest_lines(tmp_path / "test.jsonl")[0]["split"] == "test"


def test_splits_that_were_told_stay(tmp_path, capsys):
    one, _ = leaking_trees(tmp_path)
    table = own_table(tmp_path / "mine")
    assert check(one, table, "--fix", "clean.jsonl") == 1
    told = capsys.readouterr().out
    assert "  captions: no splits told, so written as train beside the splits of others" in told
    lines = manifest_lines(tmp_path / "clean.jsonl")
    assert {line["split"] for line in lines if line["source"] == "roco"} == {"test"}
    assert {line["split"] for line in lines if line["source"] == "captions"} == {"train"}


def test_a_data_set_of_one_split_keeps_it(tmp_path):
    tree = roco(tmp_path / "roco", "train", {"R_1": ("PMC1", "A CT.", jpeg_bytes(picture(1)))})
    assert check(tree, "--fix", "clean.jsonl") == 0
    assert [line["split"] for line in manifest_lines(tmp_path / "clean.jsonl")] == ["train"]
