"""Copies the best checkpoint of a stage-2 run into the package, in float16.

python tools/demo_backbones/ship_captioner.py output/msmedcap/caption
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.common.paths import PACKAGE_PREFIX, package_path
from lavis_msmedcap.models.checkpoints import find_checkpoint, read_checkpoint, save_checkpoint
from lavis_msmedcap.models.frozen_marks import FROZEN
from lavis_msmedcap.models.vocabularies import VOCABULARIES

TARGET = "assets/demo/msmedcap.safetensors"
KEPT = ("arch", "epoch", "global_step", "step", FROZEN, VOCABULARIES)
ORIGIN = ("stage1", "finetuned")  # what the run started from, on the machine that trained it


def main() -> None:
    """Reads the checkpoint named on the command line and writes the packaged one."""
    state_dict, metadata = read_checkpoint(find_checkpoint(sys.argv[1]))
    half = {name: tensor.half() for name, tensor in state_dict.items()}
    header = shipped_header(metadata)
    save_checkpoint(package_path(TARGET), half, header)
    print(json.dumps({key: value for key, value in header.items() if key != FROZEN}))


def shipped_header(metadata: Mapping[str, str]) -> dict[str, str]:
    """Keeps what users' configurations are compared with, and no path of the machine.

    Raises:
        WeightsError: If the checkpoint was trained with files that are not in the package.
    """
    model = json.loads(metadata["model"])
    model.update(dict.fromkeys(ORIGIN))
    outside = [value for value in _strings(model) if _is_path(value) and value != model["prompt"]]
    if outside:
        raise WeightsError(
            f"the run used {', '.join(outside)}, which users do not have; train with files of the "
            f"package ({PACKAGE_PREFIX}assets/...)"
        )
    kept = {key: value for key, value in metadata.items() if key in KEPT}
    return {**kept, "model": json.dumps(model)}


def _is_path(value: str) -> bool:
    return not value.startswith(PACKAGE_PREFIX) and any(mark in value for mark in "/\\~$")


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, (dict, list)):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _strings(value)


if __name__ == "__main__":
    main()
