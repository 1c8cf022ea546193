"""Our own checkpoint files: written atomically, found, and read.

They are safetensors files that hold trainable parameters only, under the names of
``named_parameters()``, for example ``branches.sam.query_tokens``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.weight_files import locate

FORMAT_NAME = "lavis_msmedcap"
FORMAT_VERSION = "1"
CHECKPOINT_NAMES = ("checkpoint_best.safetensors", "checkpoint_last.safetensors")


def save_checkpoint(
    path: Path, state_dict: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes a checkpoint so that a crash leaves either the old file or the new one.

    Args:
        path: Target ``.safetensors`` file.
        state_dict: Tensors by name.
        metadata: Strings kept in the file's header.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    header = {**metadata, "format": FORMAT_NAME, "format_version": FORMAT_VERSION}
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        save_file(tensors, partial, metadata=header)
        partial.chmod(0o666 & ~_umask())  # safetensors writes for the owner alone
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    """Returns the process' file mode mask (which can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a checkpoint that `save_checkpoint` wrote.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        WeightsError: If the file is missing, damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
        state_dict = load_file(path)
    except FileNotFoundError as error:
        raise WeightsError(f"checkpoint {path} does not exist") from error
    except SafetensorError as error:
        raise WeightsError(
            f"checkpoint {path} is damaged or not a safetensors file ({error}); "
            "copy it again or take an earlier checkpoint of the run"
        ) from error
    if metadata.get("format") != FORMAT_NAME:
        raise WeightsError(
            f"{path} was not written by {FORMAT_NAME} (its header has no such mark); "
            "name a checkpoint of a training run, or its run directory"
        )
    return state_dict, metadata


def find_checkpoint(location: str | os.PathLike[str]) -> Path:
    """Finds the checkpoint that a configuration means.

    Args:
        location: A checkpoint file, a run directory, a folder of run directories (the newest run
            that holds a checkpoint is taken), or the address of a file that has been downloaded.
            Best goes before last.

    Raises:
        WeightsError: If there is none.
    """
    path = locate(os.fspath(location))
    if path.is_file():
        return path
    for name in CHECKPOINT_NAMES:
        if (path / name).is_file():
            return path / name
    runs = sorted(
        (run for run in path.glob("*") if run.is_dir() and not run.name.startswith(".")),
        key=lambda run: run.name,
        reverse=True,
    )
    for run in runs:
        for name in CHECKPOINT_NAMES:
            if (run / name).is_file():
                return run / name
    raise WeightsError(
        f"no checkpoint at {path}: expected a .safetensors file, a run directory with "
        f"{' or '.join(CHECKPOINT_NAMES)}, or a folder of such runs"
    )
