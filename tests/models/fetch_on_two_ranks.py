"""Run under torchrun: both ranks ask a model for its weights; writes what each of them got."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models import weight_download
from lavis_msmedcap.models.blip2_dual_qformer import Blip2DualQformer
from lavis_msmedcap.models.weight_files import find


def main(settings_file: Path, out: Path) -> None:
    """Writes per rank and setting where the weights are, or the error."""
    weight_download.PAUSES = ()
    told = []
    dist.init_process_group("gloo")
    for settings in json.loads(settings_file.read_text()):
        try:
            Blip2DualQformer.prepare_inputs(settings)
            told.append(str(find(settings["branches"]["sam"]["encoder"]["weights"])))
        except WeightsError as error:
            told.append(f"error: {error}")
    (out / f"rank{os.environ['RANK']}").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
