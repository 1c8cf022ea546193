"""torch.load tells some cut files by an OSError, which came through as a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.weights import read_weights


@pytest.mark.parametrize("share", [0.001, 0.25, 0.5, 0.9, 0.999])
def test_wherever_it_is_cut(tmp_path: Path, share: float) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"model": {f"layer.{i}": torch.ones(100) for i in range(200)}}, file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        read_weights(file)
