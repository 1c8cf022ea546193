from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from lavis.common.registry import registry
from omegaconf import OmegaConf
from torch import nn

from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.tasks import _base
from lavis_msmedcap.tasks._base import MSMedCapTask, gather_rows
from lavis_msmedcap.tasks.medical_captioning import MedicalCaptioningTask
from lavis_msmedcap.tasks.mixed_semantic_pretrain import MixedSemanticPretrainTask

ROWS = [{"dataset": "roco", "image_id": str(i), "rank": 0} for i in (0, 2)]
OTHERS = [{"dataset": "roco", "image_id": str(i), "rank": 1} for i in (1, 0)]  # 0 is padding
EXPECTED = [("roco", "0"), ("roco", "1"), ("roco", "2")]


@pytest.fixture
def _two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_base, "gather_objects", lambda rows: [*rows, *OTHERS])


def test_both_tasks_are_registered():
    assert registry.get_task_class("mixed_semantic_pretrain") is MixedSemanticPretrainTask
    assert registry.get_task_class("medical_captioning") is MedicalCaptioningTask


@pytest.mark.usefixtures("_two_ranks")
def test_rows_of_all_ranks_come_once_and_in_the_order_of_the_data():
    rows = gather_rows(ROWS, EXPECTED, "val")
    assert [(row["image_id"], row["rank"]) for row in rows] == [("0", 0), ("1", 1), ("2", 0)]


@pytest.mark.usefixtures("_two_ranks")
def test_missing_and_unasked_rows_are_an_error():
    expected = [*EXPECTED[:2], ("medicat", "2")]
    with pytest.raises(DataError, match=r"missing: medicat/2; not expected: roco/2"):
        gather_rows(ROWS, expected, "val")


def test_the_same_id_in_two_datasets_is_two_images():
    rows = [{"dataset": name, "image_id": "1"} for name in ("roco", "medicat")]
    assert gather_rows(rows, [("roco", "1"), ("medicat", "1")], "val") == rows
    assert gather_rows(rows, None, "val") == rows


def test_unknown_names_are_told_with_the_known_ones():
    task = MSMedCapTask()
    with pytest.raises(ConfigError, match=r"model\.arch 'blip3' is not registered"):
        task.build_model(SimpleNamespace(model_cfg=OmegaConf.create({"arch": "blip3"})))
    with pytest.raises(ConfigError, match=r"datasets\.rocco is not a registered dataset.*coco"):
        task.build_datasets(SimpleNamespace(datasets_cfg=OmegaConf.create({"rocco": {}})))
    with pytest.raises(ConfigError, match="datasets is empty"):
        task.build_datasets(SimpleNamespace(datasets_cfg=OmegaConf.create({})))


def test_lavis_own_loop_is_refused():
    with pytest.raises(ConfigError, match="runner_msmedcap"):
        MedicalCaptioningTask().train_epoch(epoch=0, model=None)
    with pytest.raises(ConfigError, match="runner_msmedcap"):
        MedicalCaptioningTask().train_iters(epoch=0, start_iters=0)


def test_evaluation_moves_tensors_and_keeps_lists():
    class Echo(MSMedCapTask):
        def valid_step(self, _model: Any, samples: Any) -> Any:
            assert samples["names"] == ["a", "b"]
            return samples["x"].tolist()

    import torch

    batches = [{"x": torch.tensor([1, 2]), "names": ["a", "b"]}] * 2
    assert Echo().evaluation(nn.Linear(1, 1), batches) == [1, 2, 1, 2]


def test_before_evaluation_tells_lavis_models_only():
    heard = []
    model = nn.Linear(1, 1)
    MSMedCapTask().before_evaluation(model, dataset=None)
    model.before_evaluation = lambda **kwargs: heard.append(kwargs)
    MSMedCapTask().before_evaluation(model, dataset="data")
    assert heard == [{"dataset": "data", "task_type": MSMedCapTask}]
