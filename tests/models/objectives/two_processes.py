"""Run under torchrun: stage-1 losses of two halves against the joint batch."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from lavis_msmedcap.models.branch import QFormerBranch, QFormerSize
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.encoders.outputs import ImageEmbeds

EVA = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0}


def most_likely(weights: torch.Tensor, _: int) -> torch.Tensor:
    """Replaces the random draw of negatives: the two layouts would draw different numbers."""
    return weights.argmax(dim=-1, keepdim=True)


def losses_and_gradients(rows: slice) -> dict[str, torch.Tensor]:
    """Returns the losses and gradients of some rows of one fixed batch of six."""
    torch.manual_seed(0)
    encoder = build_encoder("eva_clip", EVA, None, "random")
    branch = QFormerBranch(encoder, QFormerSize(60, 32, 2, 4, 64, 2, 0.0), 4, 16)
    with torch.no_grad():
        for parameter in branch.qformer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    embeds = torch.randn(6, 17, 24)
    ids = torch.randint(5, 59, (6, 8))
    ids[1, 4:] = ids[4, 6:] = 0
    image = ImageEmbeds(embeds[rows], torch.ones(6, 17, dtype=torch.long)[rows])
    losses = branch.stage1_losses(image, ids[rows], (ids != 0).long()[rows], 0, 59).losses
    # per token in the joint batch, per sample across processes: weigh ITG by its tokens
    tokens = (ids[rows, 1:] != 0).sum()
    all_tokens = (ids[:, 1:] != 0).sum()
    processes = dist.get_world_size() if dist.is_initialized() else 1
    (losses["itc"] + losses["itm"] + losses["lm"] * tokens / all_tokens * processes).backward()
    values = {name: loss.detach() for name, loss in losses.items() if name != "lm"}
    values["lm"] = losses["lm"].detach() * tokens / all_tokens * processes
    gradients = {n: p.grad for n, p in branch.named_parameters() if p.grad is not None}
    return {**values, **gradients}


def main(out: Path) -> None:
    """Compares and writes the largest differences."""
    torch.multinomial = most_likely
    joint = losses_and_gradients(slice(0, 6))
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    half = losses_and_gradients(slice(rank * 3, rank * 3 + 3))
    differences = {}
    for name, value in half.items():
        mean = value.clone()
        dist.all_reduce(mean)
        differences[name] = float((mean / 2 - joint[name]).abs().max())
    if rank == 0:
        out.write_text(json.dumps(differences))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
