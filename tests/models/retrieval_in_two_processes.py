"""Run under torchrun: scores of two processes against those of one."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from lavis_msmedcap.models.retrieval import collect_galleries, retrieval_scores

# isort: split
# after the package, whose hook is what lets LAVIS be imported beside newer libraries
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from lavis_stage1 import make_branch, make_texts


def main(out: Path) -> None:
    """Writes the largest difference of either direction's scores."""
    branch, texts = make_branch(), make_texts()
    view = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        image = branch.encode(view, torch.empty(0))
    galleries = collect_galleries({"clip": branch}, [({"clip": image}, None)], 4, *texts)
    alone = retrieval_scores(galleries, *texts, k_test=2)
    dist.init_process_group("gloo")
    together = retrieval_scores(galleries, *texts, k_test=2)
    difference = max(float((a - b).abs().max()) for a, b in zip(alone, together))
    worst = torch.tensor(difference)
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    if dist.get_rank() == 0:
        out.write_text(str(float(worst)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
