"""One process of the test of a divided LLM: ``shard_worker.py RANK WORLD_SIZE FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.runners.sharding import shard_llm

CPU = torch.device("cpu")
TEXTS = ["axial ct of the chest", "two red circles", "a blue square", "a hand"]


def build(settings: dict[str, Any], divided: bool) -> MSMedCap:
    torch.manual_seed(0)
    model = MSMedCap.from_config(settings)
    if divided:
        shard_llm(model, CPU)
    return model


def figures(model: MSMedCap, images: torch.Tensor, rank: int) -> dict[str, Any]:
    """A step under DDP on two images of each rank, then captions of three images and of one."""
    wrapped = DistributedDataParallel(model, find_unused_parameters=True).train()
    mine = slice(2 * rank, 2 * rank + 2)
    losses = []
    for _ in range(2):  # the second with what the first one left behind
        wrapped.zero_grad(set_to_none=True)
        loss = wrapped({"image": images[mine], "text_input": TEXTS[mine]})["loss"]
        loss.backward()
        losses.append(float(loss.detach()))
    gradients = {
        name: float(p.grad.norm()) for name, p in model.named_parameters() if p.grad is not None
    }
    model.eval()
    share = images[:3] if rank == 0 else images[3:4]
    lengths = {"num_beams": 3, "max_length": 12} if rank == 0 else {"num_beams": 1, "max_length": 3}
    captions = model.generate({"image": share}, **lengths)
    # rank 0 has nothing to do here, and waits for the other one
    captions += model.generate({"image": images[:0] if rank == 0 else images[:2]})
    answers = model.predict_answers(
        {"image": share, "text_input": ["what is it?"] * len(share)},
        inference_method="rank" if rank else "generate",
        answer_list=["a hand", "a chest", "a circle"],
        num_ans_candidates=2,
    )
    return {
        "losses": losses,
        "gradients": gradients,
        "captions": captions,
        "answers": answers,
        # one process writes checkpoints
        "metadata": model.checkpoint_metadata() if rank == 0 else None,
        "table": model.describe_trainable(),
        "names": list(model.trainable_state_dict()),
    }


def held(model: MSMedCap) -> int:
    """Values of the LLM that this process holds."""
    layers = model.opt_model.model.decoder.layers
    return sum(getattr(p, "_local_tensor", p).numel() for p in layers.parameters())


def main() -> None:
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    dist.init_process_group(
        "gloo",
        init_method=(folder / "rendezvous").as_uri(),
        rank=rank,
        world_size=world_size,
    )
    settings = json.loads((folder / "settings.json").read_text())
    images = torch.load(folder / "images.pt", weights_only=True)
    found: dict[str, Any] = {}
    for name in ("whole", "divided", "checkpointed"):
        settings["llm"]["gradient_checkpointing"] = name == "checkpointed"
        model = build(settings, name != "whole")
        found[name] = {**figures(model, images, rank), "held": held(model)}
    (folder / f"rank{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
