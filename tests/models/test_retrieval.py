"""LAVIS' own retrieval task with both branches, against a brute-force computation."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lavis.common.registry import registry
from lavis.datasets.datasets.retrieval_datasets import RetrievalEvalDataset
from lavis.tasks.retrieval import RetrievalTask
from omegaconf import OmegaConf
from PIL import Image
from tiny_models import spread
from torch.utils.data import DataLoader
from two_ranks import run_on_two_ranks

from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.processors.image_processors import MSMedCapImageEvalProcessor

CAPTIONS = [
    ["axial ct of the chest", "ct of the chest"],
    ["two red circles", "red circles", "two circles"],
    ["a round lesion"],
    ["a blue square", "a square"],
]
TEXTS = [caption for captions in CAPTIONS for caption in captions]


@pytest.fixture
def model(stage1_settings: dict[str, Any]) -> Blip2DualQformer:
    torch.manual_seed(0)
    model = Blip2DualQformer.from_config(stage1_settings).eval()
    spread(model)
    return model


@pytest.fixture
def dataset(tmp_path: Path) -> RetrievalEvalDataset:
    """Four images and eight captions in the format of LAVIS' retrieval datasets."""
    generator = torch.Generator().manual_seed(0)
    annotations = []
    for number, captions in enumerate(CAPTIONS):
        size = (40 - 5 * number, 30)
        pixels = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{number}.png")
        annotations.append({"image": f"{number}.png", "caption": captions})
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(annotations))
    processor = MSMedCapImageEvalProcessor(image_size=16, sam_image_size=32)
    return RetrievalEvalDataset(processor, str, str(tmp_path), [str(file)])


def brute_force(
    model: Blip2DualQformer, dataset: RetrievalEvalDataset, branch: str, k_test: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores every pair by itself, then keeps the best."""
    similarity, logits = torch.empty(4, 8), torch.empty(4, 8)
    for row in range(4):
        image = dataset[row]["image"][None]
        for column, text in enumerate(TEXTS):
            pair = {"image": image, "text_input": text}
            similarity[row, column] = model.match(pair, "itc", branch)
            logits[row, column] = model.match(pair, "itm", branch)[0, 1]
    i2t, t2i = torch.full((4, 8), -100.0), torch.full((8, 4), -100.0)
    for row in range(4):
        for column in similarity[row].argsort(descending=True)[:k_test]:
            i2t[row, column] = similarity[row, column] + logits[row, column]
    for column in range(8):
        for row in similarity[:, column].argsort(descending=True)[:k_test]:
            t2i[column, row] = similarity[row, column] + logits[row, column]
    return i2t, t2i


@pytest.mark.parametrize("branch", ["clip", "sam", "fused"])
@pytest.mark.parametrize(("batch_size", "k_test"), [(1, 2), (3, 3), (8, 100)])
def test_scores_are_those_of_brute_force(
    model: Blip2DualQformer,
    dataset: RetrievalEvalDataset,
    branch: str,
    batch_size: int,
    k_test: int,
) -> None:
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True)  # put in order by "index"
    config = OmegaConf.create({"k_test": k_test, "branch": branch})
    scores = model.compute_sim_matrix(loader, task_cfg=config)
    for own, expected in zip(scores, brute_force(model, dataset, branch, k_test)):
        torch.testing.assert_close(torch.from_numpy(own), expected, atol=1e-5, rtol=1e-5)


def test_lavis_retrieval_task(
    model: Blip2DualQformer, dataset: RetrievalEvalDataset, tmp_path: Path
) -> None:
    registry.mapping["paths"]["output_dir"] = str(tmp_path)
    task = RetrievalTask.setup_task(SimpleNamespace(run_cfg=OmegaConf.create({"k_test": 4})))
    result = task.evaluation(model, DataLoader(dataset, batch_size=3))
    assert json.loads((tmp_path / "evaluate.txt").read_text()) == result
    i2t, t2i = brute_force(model, dataset, "fused", 4)
    own = [[0, 1], [2, 3, 4], [5], [6, 7]]
    hits = [int(best) in texts for best, texts in zip(i2t.argmax(dim=1), own)]
    assert result["txt_r1"] == 100 * sum(hits) / 4
    images = [0, 0, 1, 1, 1, 2, 3, 3]
    hits = [int(best) == image for best, image in zip(t2i.argmax(dim=1), images)]
    assert result["img_r1"] == 100 * sum(hits) / 8


def test_what_retrieval_lacks_is_a_clear_error(
    model: Blip2DualQformer, dataset: RetrievalEvalDataset
) -> None:
    loader = DataLoader(dataset, batch_size=3)
    with pytest.raises(ValueError, match=r"run\.k_test is None"):
        model.compute_sim_matrix(loader, OmegaConf.create({}))
    with pytest.raises(ValueError, match="branch is 'dino'"):
        model.compute_sim_matrix(loader, OmegaConf.create({"k_test": 2, "branch": "dino"}))
    partial = DataLoader(dataset, batch_size=3, drop_last=True)
    with pytest.raises(ValueError, match="got 3 images of a dataset of 4"):
        model.compute_sim_matrix(partial, OmegaConf.create({"k_test": 2}))


def test_two_processes_share_the_pairs_and_get_the_same_scores(tmp_path: Path) -> None:
    script = Path(__file__).with_name("retrieval_in_two_processes.py")
    run_on_two_ranks(script, tmp_path / "difference")
    assert float((tmp_path / "difference").read_text()) < 1e-5  # pairs are batched differently
