"""With loader workers, a damaged image was a RuntimeError that held the worker's traceback.

torch builds the error of a worker anew from its text, and `BadImageError` takes two arguments.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import Dataset

from lavis_msmedcap import train
from lavis_msmedcap.imaging.read import read_image
from lavis_msmedcap.runners.worker_errors import PlainErrorLoader


class OneFile(Dataset):  # type: ignore[type-arg]
    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _index: int) -> dict[str, object]:
        return {"image": read_image(self.path)}


@pytest.mark.parametrize("workers", [0, 1])
def test_it_is_one_line(workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    loader = PlainErrorLoader(OneFile(path), lambda samples: samples[0], num_workers=workers)
    assert train.guarded(lambda: len(list(loader))) == train.EXIT_WRONG_INPUT
    told = capsys.readouterr().err
    assert told.startswith(f"error: cannot read image {path}: not an image format")
    assert told.count("\n") == 1
