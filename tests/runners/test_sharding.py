"""A frozen LLM divided among two processes computes what an undivided one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import lavis_msmedcap
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.runners.sharding import _has_fsdp2, check_sharding, shard_llm
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

WORKER = Path(__file__).with_name("shard_worker.py")
WORLD_SIZE = 2
needs_fsdp2 = pytest.mark.skipif(not _has_fsdp2(), reason="torch before 2.6")


@pytest.fixture
def ranks(
    stage2_settings: dict[str, Any], packed_images: torch.Tensor, tmp_path: Path
) -> list[dict[str, Any]]:
    """What each of two processes found, see the worker."""
    stage2_settings["qformer"]["dropout"] = 0.0
    (tmp_path / "settings.json").write_text(json.dumps(stage2_settings))
    torch.save(packed_images, tmp_path / "images.pt")
    package = Path(lavis_msmedcap.__file__).parent.parent
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(WORLD_SIZE), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD_SIZE)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output
    return [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(WORLD_SIZE)]


def marks(found: dict[str, Any]) -> Any:
    """What a checkpoint would say about the frozen networks; of the first process only."""
    return (found["metadata"] or {}).get("frozen")


@needs_fsdp2
def test_two_processes_share_an_llm(ranks: list[dict[str, Any]]) -> None:
    for number, rank in enumerate(ranks):
        whole = rank["whole"]
        for name in ("divided", "checkpointed"):
            divided = rank[name]
            assert divided["held"] == pytest.approx(whole["held"] / WORLD_SIZE, rel=0.05)
            assert divided["losses"] == pytest.approx(whole["losses"], abs=1e-5)
            assert len(divided["gradients"]) > 20
            assert divided["gradients"] == pytest.approx(whole["gradients"], rel=1e-5, abs=1e-7)
            assert len(divided["captions"]) == 3
            for key in ("captions", "answers", "table", "names"):
                assert divided[key] == whole[key], (number, name, key)
            assert marks(divided) == marks(whole)


@needs_fsdp2
def test_what_cannot_be_divided_is_told(
    tiny: ModuleType, tmp_path: Path, stage2_settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"run\.shard_llm: TinyModel has no language model"):
        tiny.make_runner(tmp_path / "out", MixedSemanticPretrainTask(), shard_llm=True)
    assert not (tmp_path / "out").exists()
    model = MSMedCap.from_config(stage2_settings)
    check_sharding(model)
    model.opt_model.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"set model\.llm\.lora=null"):
        check_sharding(model)


def test_one_process_has_nothing_to_divide(
    stage2_settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = MSMedCap.from_config(stage2_settings)
    with caplog.at_level("INFO"):
        shard_llm(model, torch.device("cpu"))
    assert "one process holds all of the LLM" in caplog.text
    assert all(type(p) is torch.nn.Parameter for p in model.opt_model.parameters())


def test_an_old_torch_is_told(
    stage2_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MSMedCap.from_config(stage2_settings)
    monkeypatch.delattr("torch.distributed.fsdp.fully_shard", raising=False)
    with pytest.raises(ConfigError, match=r"needs torch 2\.6 or newer"):
        check_sharding(model)
