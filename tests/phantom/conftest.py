from __future__ import annotations

from pathlib import Path

import pytest

from lavis_msmedcap.phantom import PhantomSizes, ensure_phantom

TINY = PhantomSizes(
    coco_train=6, coco_val=3, roco_train=14, roco_validation=5, roco_test=6, medicat=30
)


@pytest.fixture(scope="session")
def tiny_sizes() -> PhantomSizes:
    return TINY


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ensure_phantom(tmp_path_factory.mktemp("phantom"), seed=3, sizes=TINY)
