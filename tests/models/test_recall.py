from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.models import recall
from lavis_msmedcap.models.recall import Recall, measure_recall, recall_names

CPU = torch.device("cpu")


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def brute_force(similarity: Tensor, captions: list[list[int]]) -> list[float]:
    """Sorts everything, as the definition says."""
    shares = []
    for k in (1, 5, 10):
        best = [set(row.argsort(descending=True)[:k].tolist()) for row in similarity]
        shares.append(sum(bool(b & set(own)) for b, own in zip(best, captions)) / len(best))
    owners = [{i for i, own in enumerate(captions) if t in own} for t in range(similarity.shape[1])]
    for k in (1, 5, 10):
        best = [set(row.argsort(descending=True)[:k].tolist()) for row in similarity.t()]
        shares.append(sum(bool(b & own) for b, own in zip(best, owners)) / len(best))
    return shares


@pytest.mark.parametrize("at_once", [3, 64])
def test_equals_sorting_everything(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "IMAGES_AT_ONCE", at_once)
    captions = [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(20)]
    captions[4].append(0)  # a caption of two images
    images = [draw(20, 4, 8, seed=1), draw(20, 6, 8, seed=2)]
    texts = [draw(60, 8, seed=3), draw(60, 8, seed=4)]
    sims = [torch.einsum("iqe,te->iqt", i, t).amax(dim=1) for i, t in zip(images, texts)]
    for chosen in ([0], [1], [0, 1]):
        found = measure_recall(
            [images[n] for n in chosen], [texts[n] for n in chosen], captions, CPU
        )
        expected = brute_force(torch.stack([sims[n] for n in chosen]).mean(dim=0), captions)
        assert [*found.i2t, *found.t2i] == pytest.approx(expected)
        assert (found.images, found.texts) == (20, 60)
        assert 0 < expected[1] < expected[2] < 1


def test_captions_of_an_image_are_no_rivals_of_each_other() -> None:
    image = torch.eye(3)[:, None]  # (3, 1, 3)
    texts = torch.eye(3).repeat_interleave(5, dim=0)  # five captions of each, all alike
    found = measure_recall([image], [texts], [list(range(5 * i, 5 * i + 5)) for i in range(3)], CPU)
    assert found.i2t == found.t2i == (1, 1, 1)


def test_a_network_that_gives_all_pairs_the_same_finds_nothing() -> None:
    same = F.normalize(torch.full((20, 2, 7), 0.3), dim=-1)
    found = measure_recall([same], [same[:, 0]], [[i] for i in range(20)], CPU)
    assert found.i2t == found.t2i == (0, 0, 0)


def test_bf16_autocast_does_not_change_it() -> None:
    images, texts = draw(200, 3, 32, seed=5), draw(200, 32, seed=6)
    texts = F.normalize(texts + 0.4 * images[:, 0], dim=-1)
    captions = [[i] for i in range(200)]
    plain = measure_recall([images], [texts], captions, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        assert measure_recall([images], [texts], captions, CPU) == plain


def test_names_and_values() -> None:
    found = Recall(10, 20, (0.1, 0.2, 0.3), (0.4, 0.5, 0.9)).metrics()
    assert list(found) == recall_names()
    assert found["i2t_r10"] == 0.3
    assert found["t2i_r1"] == 0.4
    assert math.isclose(found["r_mean"], 0.4)
