from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from torch import nn

from lavis_msmedcap.tasks import medical_captioning
from lavis_msmedcap.tasks.medical_captioning import (
    Decoding,
    MedicalCaptioningTask,
    deciding_metric,
)


class Captioner(nn.Module):
    def __init__(self, captions: list[str]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.captions = captions
        self.settings: dict[str, Any] = {}

    def generate(self, samples: Any, **settings: Any) -> list[str]:
        self.settings = settings
        return self.captions[: len(samples["image_id"])]


def batch(dataset: str, *ids: str) -> dict[str, Any]:
    return {
        "image": torch.zeros(len(ids), 1),
        "image_id": list(ids),
        "dataset": [dataset] * len(ids),
        "image_path": [f"/nowhere/{image_id}.png" for image_id in ids],
        "references": [[f"a ct scan of the {image_id} chest"] for image_id in ids],
    }


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "result").mkdir()
    monkeypatch.setitem(registry.mapping["paths"], "output_dir", str(tmp_path))
    monkeypatch.setitem(registry.mapping["paths"], "result_dir", str(tmp_path / "result"))
    return tmp_path


def config(run: dict[str, Any], root: str = "/data/roco") -> Any:
    return SimpleNamespace(
        run_cfg=OmegaConf.create(run),
        datasets_cfg=OmegaConf.create({"roco": {"build_info": {"root": root}}}),
    )


def rows_of(task: MedicalCaptioningTask) -> list[dict[str, Any]]:
    model = Captioner(["a ct scan of the left chest", "an x-ray of the right chest"])
    return task.evaluation(model, [batch("roco", "left", "right"), batch("medicat", "left")])


def test_decoding_comes_from_the_run_section():
    run = {"num_beams": 15, "max_len": 50, "min_len": 10, "length_penalty": 1.2}
    task = MedicalCaptioningTask.setup_task(config({**run, "repetition_penalty": None}))
    assert task.decoding == Decoding(15, 50, 10, 1.2, 1.0)
    model = Captioner(["x"])
    task.evaluation(model, [batch("roco", "left")])
    assert model.settings == {
        "use_nucleus_sampling": False,
        "num_beams": 15,
        "max_length": 50,
        "min_length": 10,
        "length_penalty": 1.2,
        "repetition_penalty": 1.0,
    }


@pytest.mark.parametrize(
    ("run", "split"),
    [
        ({"test_splits": ["test", "val"]}, "test"),
        ({"test_splits": ["test"], "report": False}, None),
        ({"valid_splits": ["val"]}, None),
        ({"valid_splits": ["val"], "evaluate": True}, "val"),
        ({"test_splits": None}, None),
    ],
)
def test_which_split_gets_the_report(run: dict[str, Any], split: str | None):
    assert MedicalCaptioningTask.setup_task(config(run)).report_split == split


def test_phantoms_are_recognised():
    assert MedicalCaptioningTask.setup_task(config({}, "phantom:roco")).phantom
    assert not MedicalCaptioningTask.setup_task(config({})).phantom


def test_captions_scores_and_report_are_written(run_dir: Path):
    task = MedicalCaptioningTask(report_split="test", phantom=True)
    result = task.after_evaluation(rows_of(task), "test", "best", None, weights="w.safetensors")
    predictions = json.loads((run_dir / "result" / "predictions_test.json").read_text())
    assert predictions[0] == {
        "image_id": "left",
        "dataset": "roco",
        "caption": "a ct scan of the left chest",
        "references": ["a ct scan of the left chest"],
        "image": "/nowhere/left.png",
    }
    metrics = json.loads((run_dir / "result" / "metrics_test.json").read_text())
    assert set(metrics["per_dataset"]) == {"roco", "medicat"}
    assert metrics["pooled"]["n"] == 3
    assert (metrics["split"], metrics["epoch"]) == ("test", "best")
    assert metrics["weights"] == "w.safetensors"
    assert metrics["decoding"]["num_beams"] == 5
    assert "modality_accuracy" in metrics["phantom_figures"]
    assert result["agg_name"] == "CIDEr"
    assert result["agg_metrics"] == pytest.approx(metrics["pooled"]["scores"]["CIDEr"])
    for name, value in metrics["pooled"]["scores"].items():
        assert result[name] == pytest.approx(value)
    assert "left chest" in (run_dir / "report.html").read_text()


def test_no_report_for_other_splits(run_dir: Path):
    task = MedicalCaptioningTask(report_split="test")
    task.after_evaluation(rows_of(task), "val", 1)
    assert not (run_dir / "report.html").exists()
    assert "phantom_figures" not in json.loads(
        (run_dir / "result" / "metrics_val.json").read_text()
    )


def test_captions_are_safe_before_anything_is_scored(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(_: Any) -> Any:
        raise RuntimeError("scorer")

    monkeypatch.setattr(medical_captioning, "score_captions", broken)
    task = MedicalCaptioningTask()
    with pytest.raises(RuntimeError, match="scorer"):
        task.after_evaluation(rows_of(task), "val", 1)
    assert len(json.loads((run_dir / "result" / "predictions_val.json").read_text())) == 3


def test_a_report_that_cannot_be_written_does_not_end_the_run(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(medical_captioning, "write_report", full)
    task = MedicalCaptioningTask(report_split="val")
    assert task.after_evaluation(rows_of(task), "val", 1)["agg_metrics"] is not None
    assert "No space left" in caplog.text
    assert (run_dir / "result" / "metrics_val.json").is_file()


def test_the_deciding_metric():
    assert deciding_metric({"BLEU_1": 0.5, "CIDEr": 0.0}) == ("CIDEr", 0.0)
    assert deciding_metric({"BLEU_1": 0.5, "ROUGE_L": 0.1}) == ("BLEU_1", 0.5)
    assert deciding_metric({}) == (None, None)
