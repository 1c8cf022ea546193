from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lavis_msmedcap.phantom import FURTHER, PhantomSizes, ensure_phantom

TINY = PhantomSizes(
    coco_train=6, coco_val=3, roco_train=14, roco_validation=5, roco_test=6, medicat=30
)


TINY_FURTHER = replace(
    FURTHER, rocov2_train=9, rocov2_valid=3, rocov2_test=4, table=12
)  # fmt: skip


@pytest.fixture(scope="session")
def further_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_phantom(tmp_path_factory.mktemp("further"), seed=3, sizes=TINY_FURTHER)


@pytest.fixture(scope="session")
def tiny_sizes() -> PhantomSizes:
    return TINY


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_phantom(tmp_path_factory.mktemp("phantom"), seed=3, sizes=TINY)
