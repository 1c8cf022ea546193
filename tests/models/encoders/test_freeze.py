from __future__ import annotations

import copy
import pickle

import torch
from torch import nn

from lavis_msmedcap.models.encoders.freeze import freeze, is_frozen


def parent_with_frozen_child() -> nn.Module:
    parent = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    freeze(parent[1])
    return parent


def test_frozen_part_stays_in_eval_when_the_parent_trains() -> None:
    parent = parent_with_frozen_child()
    parent.train()
    assert parent[0].training
    assert not parent[1].training
    assert not parent[1][1].training
    assert is_frozen(parent[1])
    assert not is_frozen(parent)


def test_frozen_module_can_be_copied_and_pickled() -> None:
    parent = parent_with_frozen_child()
    for twin in (copy.deepcopy(parent), pickle.loads(pickle.dumps(parent))):
        twin.train()
        assert not twin[1].training
        twin[1][0].weight.data.zero_()
        assert torch.count_nonzero(parent[1][0].weight) == 4
