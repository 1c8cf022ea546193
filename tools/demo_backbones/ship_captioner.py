"""Copies the best checkpoint of a stage-2 run into the package, in float16.

python tools/demo_backbones/ship_captioner.py output/msmedcap/caption
"""

from __future__ import annotations

import json
import sys

from lavis_msmedcap.common.paths import package_path
from lavis_msmedcap.models.checkpoints import find_checkpoint, read_checkpoint, save_checkpoint

TARGET = "assets/demo/msmedcap.safetensors"
KEPT = ("arch", "epoch", "global_step", "step")  # no paths of the machine that trained it


def main() -> None:
    """Reads the checkpoint named on the command line and writes the packaged one."""
    state_dict, metadata = read_checkpoint(find_checkpoint(sys.argv[1]))
    half = {name: tensor.half() for name, tensor in state_dict.items()}
    header = {key: value for key, value in metadata.items() if key in KEPT}
    save_checkpoint(package_path(TARGET), half, header)
    print(json.dumps(header))


if __name__ == "__main__":
    main()
