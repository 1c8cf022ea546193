"""Shards of a run that were converted again came with a configuration of two equal keys."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from lavis_msmedcap.data_convert.plan import ShardSettings, plan_shards
from lavis_msmedcap.data_convert.sections import shard_sections
from lavis_msmedcap.datasets.records import MedCapRecord


def record(source: str) -> MedCapRecord:
    return MedCapRecord("/gone/a.png", ("CT.",), "i", "train", None, source, "medical")


def names(sources: list[str], instead_of: list[str]) -> list[str]:
    shards = plan_shards(map(record, sources), ShardSettings())
    lines = shard_sections(shards, Path("/out"), Path("/run.yaml"), instead_of)
    return list(OmegaConf.create("\n".join(lines)).datasets)


def test_the_new_section_has_a_name_of_its_own() -> None:
    assert names(["roco"], ["roco_shards"]) == ["roco_shards", "roco_shards_2"]
    assert names(["roco"], ["roco_shards", "roco_shards_2"])[-1] == "roco_shards_3"


def test_so_have_data_sets_that_differ_in_a_dot() -> None:
    assert names(["a.b", "a_b"], []) == ["a_b_shards", "a_b_shards_2"]
