"""One process of the comparison with the joint batch, started as a script.

``joint_batch_worker.py FOLDER`` reads ``cases.json`` and ``images.safetensors`` there and writes
what each case gave. The test calls `measure` and `train` too, alone, on the joint batches.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lavis_msmedcap.common.distributed import get_rank, get_world_size, sum_over_ranks
from lavis_msmedcap.datasets.random_streams import seed_generators
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.msmedcap import MSMedCap
from lavis_msmedcap.runners.loss_meter import TOTAL, LossMeter
from lavis_msmedcap.runners.precision import Precision
from lavis_msmedcap.runners.schedule import LRSchedule, SchedulePlan
from lavis_msmedcap.runners.training_loop import TrainingLoop

# isort: split
# beside this file, and in tests/support
import tiny
from tiny_models import spread

Case = Mapping[str, Any]


def build(case: Case) -> Any:
    """Builds the model of a case, wrapped as the runner would for batches of one domain."""
    torch.manual_seed(0)
    model: Any = (Blip2DualQformer if case["stage"] == 1 else MSMedCap).from_config(
        case["settings"]
    )
    spread(model.branches)
    if get_world_size() == 1:
        return model
    unused = not model.trains_as_a_whole(case["domains"], 6)
    return DistributedDataParallel(model, find_unused_parameters=unused)


def rows_of(batch: Mapping[str, Any], images: Tensor) -> dict[str, Any]:
    """Returns the samples of this rank; ``split`` are their numbers by rank."""
    split = batch["split"] if get_world_size() > 1 else [len(batch["texts"])]
    start = sum(split[: get_rank()])
    rows = slice(start, start + split[get_rank()])
    domains = batch["domains"][rows]
    return {
        "image": images[: len(batch["texts"])][rows],
        "text_input": batch["texts"][rows],
        "domain": domains,
        "dataset": [{"general": "coco", "medical": "roco"}[domain] for domain in domains],
    }


def measure(case: Case, images: Tensor) -> dict[str, Tensor]:
    """Runs every batch forward and backward, and returns losses and gradients by name."""
    model = build(case).train()
    found: dict[str, Tensor] = {}
    for number, batch in enumerate(case["batches"]):
        model.zero_grad(set_to_none=True)
        seed_generators(1, "step", number, 0, get_rank())  # as the training loop does
        samples = rows_of(batch, images)
        output = model(samples)
        output["loss"].backward()
        meter = LossMeter()
        meter.update(output, samples)
        logged = meter.read().means()
        logged[TOTAL] = float(sum_over_ranks(output["loss"].detach())) / get_world_size()
        found |= {f"{number} loss {name}": torch.tensor(v) for name, v in logged.items()}
        bare = getattr(model, "module", model)
        found |= {
            f"{number} gradient {name}": parameter.grad.clone()
            for name, parameter in bare.named_parameters()
            if parameter.grad is not None
        }
    return found


def train(case: Case, images: Tensor, per_rank: int, accumulate: int) -> dict[str, Tensor]:
    """Trains the loop on the case's first batch, cut into parts of ``per_rank`` samples.

    The parts follow each other through the joint batch: the first of each rank, then the second.
    """
    model = build(case)
    bare = getattr(model, "module", model)
    optimizer = torch.optim.SGD(bare.get_optimizer_params(weight_decay=0.0), lr=1e-3)
    whole = case["batches"][0]
    parts = []
    size = per_rank * get_world_size()
    for start in range(0, len(whole["texts"]), size):
        start += per_rank * get_rank()
        rows = slice(start, start + per_rank)
        parts.append(
            {"image": images[: len(whole["texts"])][rows], "text_input": whole["texts"][rows]}
        )
    listener = tiny.Silent()
    loop = TrainingLoop(
        model,
        lambda m, s: m(s),
        optimizer,
        LRSchedule(optimizer, "constant_lr", SchedulePlan(init_lr=1e-3)),
        Precision("off", torch.device("cpu")),
        listener,
        accumulate=accumulate,
        clip_grad_norm=1.0,
    )
    loop.run_epoch(parts, 0)
    loop.run_epoch(parts, 1)
    return {
        "losses": torch.tensor([report.loss for report in listener.steps]),
        "gradient norms": torch.tensor([report.grad_norm for report in listener.steps]),
        **bare.trainable_state_dict(),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo", init_method="env://")
    images = load_file(folder / "images.safetensors")["images"]
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        save_file(measure(case, images), folder / f"{name}.{get_rank()}.safetensors")
        if case["stage"] == 2:
            trained = train(case, images, per_rank=1, accumulate=3)
            save_file(trained, folder / f"{name}-accumulated.{get_rank()}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
