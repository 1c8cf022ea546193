from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lavis.common.registry import registry
from omegaconf import OmegaConf
from tiny_models import spread
from torch import Tensor, nn

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.matching import pairwise_similarity
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask, mean_losses

NAN = float("nan")


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "result").mkdir()
    monkeypatch.setitem(registry.mapping["paths"], "output_dir", str(tmp_path))
    monkeypatch.setitem(registry.mapping["paths"], "result_dir", str(tmp_path / "result"))
    return tmp_path


class Fixed(nn.Module):
    """Gives the outputs that a test asks for."""

    def __init__(self, *outputs: dict[str, Any]):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.outputs = list(outputs)

    def forward(self, samples: Any) -> dict[str, Any]:  # noqa: ARG002
        return self.outputs.pop(0)


def batch(dataset: str, *ids: str) -> dict[str, Any]:
    return {
        "image": torch.zeros(len(ids), 1),
        "image_id": list(ids),
        "dataset": [dataset] * len(ids),
    }


def test_losses_are_weighted_by_images_over_everything_and_per_dataset(run_dir: Path):
    task = MixedSemanticPretrainTask()
    model = Fixed(
        {
            "loss": torch.tensor(3.0),
            "per_sample": {
                "sam/loss_itc": torch.tensor([1.0, 2.0, 3.0]),
                "clip/loss_itc": torch.tensor([4.0, 4.0, 1.0]),
            },
        },
        {
            "loss": torch.tensor(7.0),
            "per_sample": {
                "sam/loss_itc": torch.tensor([6.0]),
                "clip/loss_itc": torch.tensor([NAN]),
            },
        },
    )
    rows = task.evaluation(model, [batch("coco", "a", "b", "c"), batch("roco", "d")])
    result = task.after_evaluation(rows, "val", epoch=1, expected=None, weights="epoch 1")
    assert result == pytest.approx(
        {
            "agg_metrics": -4.0,
            "loss": (3 * 3 + 7) / 4,
            "clip/loss_itc": 3.0,
            "sam/loss_itc": 3.0,
            "coco/loss": 3.0,
            "coco/clip/loss_itc": 3.0,
            "coco/sam/loss_itc": 2.0,
            "roco/loss": 7.0,
            "roco/sam/loss_itc": 6.0,
        }
    )

    found = json.loads((run_dir / "result" / "metrics_val.json").read_text())
    assert found["losses"]["roco/sam/loss_itc"] == 6.0
    assert (found["split"], found["epoch"], found["weights"]) == ("val", 1, "epoch 1")
    assert not (run_dir / "report.html").exists()


def test_a_loss_that_is_not_finite_is_no_metric(caplog: pytest.LogCaptureFixture):
    task = MixedSemanticPretrainTask()
    rows = task.evaluation(Fixed({"loss": torch.tensor(NAN)}), [batch("roco", "a")])
    result = task.after_evaluation(rows, "val", epoch=3)
    assert result["agg_metrics"] is None
    assert math.isnan(result["loss"])
    assert "nan" in caplog.text


def test_validation_takes_no_gradients():
    class Watching(Fixed):
        def forward(self, samples: Any) -> dict[str, Any]:
            assert not torch.is_grad_enabled()
            return super().forward(samples)

    rows = MixedSemanticPretrainTask().evaluation(
        Watching({"loss": torch.tensor(1.0)}), [batch("roco", "a", "b")]
    )
    assert mean_losses(rows) == {"loss": 1.0, "roco/loss": 1.0}


@pytest.mark.parametrize(
    ("run", "split"),
    [
        ({"test_splits": ["test"], "valid_splits": ["val"]}, "test"),
        ({"test_splits": [], "valid_splits": ["val"]}, "val"),
        ({"valid_splits": ["val"], "report": False}, None),
        ({"valid_splits": None}, None),
    ],
)
def test_which_split_gets_the_report(run: dict[str, Any], split: str | None):
    cfg = SimpleNamespace(run_cfg=OmegaConf.create(run))
    assert MixedSemanticPretrainTask.setup_task(cfg).report_split == split


TEXTS = [["axial ct", "a round lesion"], ["two red circles"], ["a blue square"], ["hand"], ["lobe"]]


def test_recall_of_each_branch_from_the_pass_that_computes_the_losses(
    stage1_settings: dict[str, Any],
    packed_images: Tensor,
    run_dir: Path,
    caplog: pytest.LogCaptureFixture,
):
    torch.manual_seed(0)
    model = Blip2DualQformer.from_config(stage1_settings).eval()
    spread(model)
    passes = []
    model.branch("sam").encoder.register_forward_hook(lambda *args: passes.append(len(args[2][0])))
    samples = [
        {
            "image": packed_images[part],
            "image_id": [str(i) for i in range(5)[part]],
            "dataset": ["coco"] * len(TEXTS[part]),
            "domain": ["general"] * len(TEXTS[part]),
            "text_input": [texts[0] for texts in TEXTS[part]],
            "text_inputs": TEXTS[part],
        }
        for part in (slice(0, 3), slice(3, 5))
    ]
    task = MixedSemanticPretrainTask(report_split="val")
    with caplog.at_level("INFO"):
        rows = task.evaluation(model, samples)
        result = task.after_evaluation(rows, "val", epoch=2, weights="epoch 2")
    assert passes == [3, 2]

    texts = [text for own in TEXTS for text in own]
    tokens = model.tokenizer(texts, padding=True, return_tensors="pt")
    images = model.encode_image(packed_images)
    owners = torch.tensor([i for i, own in enumerate(TEXTS) for _ in own])
    sims = {
        name: pairwise_similarity(
            model.branch(name), images[name], tokens.input_ids, tokens.attention_mask
        )
        for name in ("clip", "sam")
    }
    sims["fused"] = (sims["clip"] + sims["sam"]) / 2
    for name, similarity in sims.items():
        hits = owners[similarity.argmax(dim=1)] == torch.arange(5)
        assert result[f"{name}/i2t_r1"] == pytest.approx(float(hits.float().mean()))
        hits = similarity.argmax(dim=0) == owners
        assert result[f"{name}/t2i_r1"] == pytest.approx(float(hits.float().mean()))
        assert result[f"{name}/i2t_r10"] == 1
    assert result["agg_metrics"] == -result["loss"]

    saved = json.loads((run_dir / "result" / "metrics_val.json").read_text())
    assert (saved["retrieval"]["sam"]["images"], saved["retrieval"]["sam"]["texts"]) == (5, 6)
    assert "t2i R@5" in caplog.text
    page = (run_dir / "report.html").read_text()
    assert "image to text R@1" in page
    assert '<th scope="row">fused</th>' in page


def test_a_model_that_trains_gives_no_features(
    stage1_settings: dict[str, Any], packed_images: Tensor
):
    model = Blip2DualQformer.from_config(stage1_settings).train()
    samples = {"image": packed_images, "text_input": [texts[0] for texts in TEXTS]}
    assert "image_feats" not in model(samples)
    output = model.eval()({**samples, "domain": ["medical"] * 4 + ["general"]})
    assert output["image_feats"]["clip"][:4].isnan().all()
    assert not output["image_feats"]["clip"][4].isnan().any()
    assert not output["image_feats"]["sam"].isnan().any()


def test_the_names_of_results_are_known_before(
    stage1_settings: dict[str, Any], packed_images: Tensor
):
    model = Blip2DualQformer.from_config(stage1_settings).eval()
    domains = {"coco": "general", "roco": "medical"}
    samples = [
        {
            "image": packed_images[part],
            "image_id": [str(i) for i in range(5)[part]],
            "dataset": [name] * len(TEXTS[part]),
            "domain": [domain] * len(TEXTS[part]),
            "text_input": [texts[0] for texts in TEXTS[part]],
        }
        for part, (name, domain) in zip((slice(0, 3), slice(3, 5)), domains.items())
    ]
    task = MixedSemanticPretrainTask()
    for chosen in ({"coco": "general"}, {"roco": "medical"}, domains):
        parts = [part for part in samples if part["dataset"][0] in chosen]
        result = task.after_evaluation(task.evaluation(model, parts), "val", epoch=1)
        names = task.metric_names(model, chosen)
        assert names is not None
        assert len(names) == len(set(names))
        assert set(names) == set(result)
