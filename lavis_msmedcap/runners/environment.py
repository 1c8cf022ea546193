"""What a run was made with, kept beside its results: versions, revision, machine, command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from lavis_msmedcap.common.distributed import get_world_size
from lavis_msmedcap.common.paths import PACKAGE_ROOT

PACKAGES = (
    "lavis-msmedcap",
    "salesforce-lavis",
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "segment-anything",
    "numpy",
    "pillow",
    "pydicom",
    "pycocoevalcap",
    "safetensors",
)
# variables that change results or speed; others may hold what must not be written down
VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "SLURM_JOB_ID",
)


def describe_environment() -> dict[str, Any]:
    """Collects the facts; whatever cannot be found out is None."""
    return {
        "command": sys.argv,
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "revision": revision(PACKAGE_ROOT),
        "processes": get_world_size(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def revision(folder: Path) -> str | None:
    """Returns the git revision of a folder, with ``-dirty`` behind it if files were changed.

    Args:
        folder: Folder in a working tree.

    Returns:
        None outside of one, or without git.
    """
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def environment_text() -> str:
    """Returns `describe_environment` as JSON."""
    return json.dumps(describe_environment(), indent=1) + "\n"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
