"""The draw of hard negatives."""

from __future__ import annotations

import pytest
import torch

from lavis_msmedcap.common.distributed import JointBatch
from lavis_msmedcap.models.objectives.itm import (
    NEGATIVE_FLOOR,
    negative_chances,
    pick,
    sample_hard_negatives,
)

LARGEST = 1 - 2**-24  # of what torch.rand draws in float32


def test_a_sample_is_never_its_own_negative() -> None:
    similarity = torch.full((8, 8), -5.0).fill_diagonal_(100.0)
    joint = JointBatch((8,))
    draws = [torch.zeros(8), torch.full((8,), LARGEST), *torch.rand(200, 8)]
    picks = torch.stack([sample_hard_negatives(similarity, joint, chance) for chance in draws])
    assert not (picks == torch.arange(8)).any()
    assert len(picks.unique()) == 8
    with pytest.raises(ValueError, match="at least 2"):
        sample_hard_negatives(torch.zeros(1, 1), JointBatch((1,)), torch.zeros(1))


def test_similar_samples_are_drawn_in_proportion() -> None:
    similarity = torch.tensor([[0.0, 1.0, 2.0, -3.0]]).repeat(20_000, 1)
    weights = similarity.softmax(dim=1) + NEGATIVE_FLOOR
    chance = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    found = torch.bincount(pick(weights, chance), minlength=4) / 20_000
    # four standard errors of a share are at most 0.0142
    torch.testing.assert_close(found, weights[0] / weights[0].sum(), atol=0.0142, rtol=0)


@pytest.mark.parametrize("counts", [(3, 3), (1, 5), (4, 0, 2)])
def test_processes_draw_what_one_of_them_draws_for_all(counts: tuple[int, ...]) -> None:
    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)) * 3
    alone = JointBatch((6,), seed=7)
    for expected_of, whole in enumerate(negative_chances(alone)):
        expected = sample_hard_negatives(similarity, alone, whole)
        assert len(expected.unique()) > 2
        found = []
        for rank in range(len(counts)):
            joint = JointBatch(counts, rank, seed=7)
            rows = similarity[joint.start : joint.start + joint.own]
            chance = negative_chances(joint)[expected_of]
            found.append(sample_hard_negatives(rows, joint, chance))
        assert torch.equal(torch.cat(found), expected)
    images, texts = negative_chances(alone)
    assert not torch.equal(images, texts)
    assert not torch.equal(images, negative_chances(JointBatch((6,), seed=8))[0])


def test_a_nan_does_not_stop_the_draw() -> None:
    """On CUDA a failed draw could not be repaired; the loop names the image by its loss."""
    similarity = torch.zeros(3, 3)
    similarity[1] = float("nan")
    picks = sample_hard_negatives(similarity, JointBatch((3,)), torch.full((3,), 0.5))
    assert not (picks == torch.arange(3)).any()
