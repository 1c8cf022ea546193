"""A damaged state with a high number took the place of the good ones that came after it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lavis_msmedcap.runners.training_state import Progress, StateStore


def test_the_state_just_written_stays(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    store = StateStore(tmp_path / "resume", keep=2)
    for step in (50, 100):
        store.save(model, optimizer, Progress(step=step), {})
    newest, good = store.paths()
    newest.write_bytes(newest.read_bytes()[:100])

    again = StateStore(tmp_path / "resume", keep=1)
    found = again.load(model, optimizer, {})
    assert found is not None
    assert found.step == 50
    assert good.is_file()
    written = again.save(model, optimizer, Progress(step=60), {})
    assert again.paths() == [written]
    after = StateStore(tmp_path / "resume", keep=1).load(model, optimizer, {})
    assert after is not None
    assert after.step == 60
