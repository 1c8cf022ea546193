"""Without a process group; `runners/test_joint_batch` compares two processes with one."""

from __future__ import annotations

import pytest
import torch

from lavis_msmedcap.common.distributed import (
    JointBatch,
    gather,
    gather_with_grad,
    meet,
    sum_over_ranks,
)

CPU = torch.device("cpu")


def test_one_process_meets_itself() -> None:
    torch.manual_seed(0)
    joint, length = meet({"clip": 3, "sam": 5}, 9, CPU)
    assert length == 9
    assert {name: batch.counts for name, batch in joint.items()} == {"clip": (3,), "sam": (5,)}
    assert joint["clip"].seed != joint["sam"].seed
    torch.manual_seed(0)
    assert meet({"clip": 3, "sam": 5}, 9, CPU)[0] == joint
    assert meet({"clip": 3, "sam": 5}, 9, CPU)[0] != joint


def test_places_in_the_joint_batch() -> None:
    parts = [JointBatch((2, 0, 3), rank) for rank in range(3)]
    assert [(part.start, part.own, part.total) for part in parts] == [
        (0, 2, 5),
        (2, 0, 5),
        (2, 3, 5),
    ]


def test_a_batch_alone_is_gathered_as_it_is() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    alone = JointBatch((3,))
    assert gather(rows, alone) is rows
    assert gather_with_grad(rows, alone) is rows
    assert torch.equal(sum_over_ranks(rows), rows)
    assert torch.equal(alone.sum(rows), rows)


def test_other_rows_than_told_are_an_error_before_anything_is_exchanged() -> None:
    for collect in (gather, gather_with_grad):
        with pytest.raises(ValueError, match="rank 1 gathers 3 rows, but told the others of 4"):
            collect(torch.zeros(3, 2), JointBatch((3, 4), rank=1))
