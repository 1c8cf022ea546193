"""Run under torchrun: recall of two processes, which share the images, and of one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from lavis_msmedcap.tasks.retrieval_pool import RetrievalPool

COUNT, QUERIES, WIDTH = 11, 3, 4
BRANCHES = ("clip", "sam")


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def encode(texts: Sequence[str]) -> dict[str, Tensor]:
    """Features that depend on the text alone, whoever encodes it."""
    return {
        name: torch.stack([draw(100 * place + int(text), WIDTH) for text in texts])
        for place, name in enumerate(BRANCHES, 1)
    }


def measure(places: list[int]) -> dict[str, Any]:
    pool = RetrievalPool()
    for place in places:
        samples = {
            "image": torch.tensor([[place]], dtype=torch.uint8),
            "dataset": ["coco" if place < 6 else "roco"],
            "text_inputs": [[str(2 * place), str(2 * place + 1)]],
        }
        feats = {name: draw(place + 50 * n, 1, QUERIES, WIDTH) for n, name in enumerate(BRANCHES)}
        pool.add(samples, feats)
    found = pool.recalls(encode, torch.device("cpu"))
    return {name: {"images": r.images, **r.metrics()} for name, r in found.items()}


def main(folder: Path) -> None:
    """Writes what one process and each of two find."""
    alone = measure(list(range(COUNT)))
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    # as the sampler of an evaluation deals them: the first image comes again on the second rank
    together = measure([*range(COUNT), 0][rank::2])
    (folder / f"{rank}.json").write_text(json.dumps(together))
    if rank == 0:
        (folder / "alone.json").write_text(json.dumps(alone))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
