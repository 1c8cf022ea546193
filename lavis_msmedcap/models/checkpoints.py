"""Checkpoint files: written atomically, found, and read.

Our own are safetensors files that hold trainable parameters only, under the names of
``named_parameters()``, for example ``branches.sam.query_tokens``. BLIP-2's and the authors' files
are read as well, see `checkpoint_names`.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.checkpoint_names import (
    AUTHORS,
    OURS,
    arch_of,
    kind_of,
    settle_aliases,
    to_ours,
)
from lavis_msmedcap.models.weight_files import locate
from lavis_msmedcap.models.weights import NOTES_ENTRY, read_weights_file, require_weights_file

FORMAT_NAME = "lavis_msmedcap"
FORMAT_VERSION = "1"
ADDED = "added"  # note of a converted file: our names of tensors that the conversion added
RUN_STATUS = "status.json"  # in a run directory: whether the run is finished
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
    with _written_at_once(path) as partial:
        save_file(tensors, partial, metadata=header)


def save_foreign(path: Path, state_dict: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """Writes a checkpoint for LAVIS or the authors' code, as atomically as our own.

    Args:
        path: Target; ``.pth`` gives ``{"model": state_dict}``, which is what LAVIS reads, and
            ``.safetensors`` a safetensors file.
        state_dict: Tensors by their foreign names; two names may share one tensor.
        notes: Strings for the way back, which LAVIS passes over.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    with _written_at_once(path) as partial:
        if path.suffix == ".safetensors":  # which takes no tensor twice
            own = {name: tensor.clone() for name, tensor in tensors.items()}
            save_file(own, partial, metadata=dict(notes))
        else:
            torch.save({"model": tensors, NOTES_ENTRY: dict(notes)}, partial)


@contextmanager
def _written_at_once(path: Path) -> Iterator[Path]:
    """Yields a file to write beside the target, which it replaces when all has been written."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield partial
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
    metadata, _ = _read_head(path)
    state_dict = load_file(path)
    if metadata.get("format") != FORMAT_NAME:
        raise WeightsError(
            f"{path} was not written by {FORMAT_NAME} (its header has no such mark); "
            "name a checkpoint of a training run, or its run directory"
        )
    return state_dict, metadata


def _read_head(path: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """Reads metadata and shapes of a safetensors file, no values.

    Raises:
        WeightsError: If the file is missing or damaged, its length included.
    """
    if not path.is_file():
        raise WeightsError(f"checkpoint {path} does not exist")
    require_weights_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            return dict(file.metadata() or {}), shapes
    except SafetensorError as error:
        raise WeightsError(
            f"checkpoint {path} is damaged or not a safetensors file ({error}); "
            "copy it again or take an earlier checkpoint of the run"
        ) from error


def read_notes(path: Path) -> dict[str, str]:
    """Reads what a safetensors file says of itself; nothing of a PyTorch file.

    Raises:
        WeightsError: If the file is missing or damaged.
    """
    return _read_head(path)[0] if path.suffix == ".safetensors" else {}


@dataclass(frozen=True)
class Header:
    """What a safetensors checkpoint says before its values are read.

    Attributes:
        kind: What it is: ``ours``, ``blip2`` or ``authors``.
        shapes: Shapes by our names.
        metadata: ``arch``, and what else the file says of itself.
    """

    kind: str
    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def read_header(path: Path) -> Header | None:
    """Reads names and shapes of a checkpoint of any kind; takes milliseconds.

    Returns:
        None for a PyTorch file, whose names stand in a pickle.

    Raises:
        WeightsError: If the file is missing, damaged, or no checkpoint.
    """
    if path.suffix != ".safetensors":
        require_weights_file(path)
        return None
    metadata, shapes = _read_head(path)
    if metadata.get("format") == FORMAT_NAME:
        return Header(OURS, shapes, metadata)
    kind = kind_of(shapes)
    if kind in (None, OURS):
        raise _no_checkpoint(path, shapes)
    named = to_ours(shapes, metadata.get("branch", "clip"))
    return Header(str(kind), named, {**metadata, "arch": _arch_of(named, metadata)})


def of_authors_code(kind: str | None, metadata: Mapping[str, str]) -> bool:
    """Tells whether a checkpoint was written by the authors' code, not converted to its names."""
    return kind == AUTHORS and not {"model", ADDED} & set(metadata)


def _arch_of(names: Iterable[str], metadata: Mapping[str, str]) -> str:
    """Returns the model of a file of others by our names."""
    return arch_of(names) or metadata.get("arch", "unknown model")


def _no_checkpoint(path: Path, names: Iterable[str]) -> WeightsError:
    return WeightsError(
        f"{path} is no checkpoint of a Q-Former: it was not written by {FORMAT_NAME}, and it has "
        f"keys like {', '.join(sorted(names)[:3])}; expected a checkpoint of a training run, or "
        "one with BLIP-2's names (Qformer.*) or the authors' (sam_Qformer.*)"
    )


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of any kind under our names.

    Attributes:
        kind: What it was: ``ours``, ``blip2`` or ``authors``.
        tensors: Values by our names; those that belong to no branch keep theirs.
        metadata: ``arch``, and what else the file says of itself.
    """

    kind: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_any_checkpoint(path: Path, branch: str | None = None) -> Checkpoint:
    """Reads a checkpoint of ours, of LAVIS' BLIP-2, or of the authors' code, told by its names.

    Args:
        path: ``.safetensors``, or a PyTorch file without executable content.
        branch: Which branch the one of a BLIP-2 file is; None asks the file, which knows if it was
            converted by this package, and else takes ``clip``.

    Raises:
        WeightsError: If the file is missing, damaged, of none of these kinds, or of another branch
            than the one that it is said to be.
    """
    if path.suffix == ".safetensors" and _is_ours(path):
        state_dict, metadata = read_checkpoint(path)
        return Checkpoint(OURS, state_dict, metadata)
    tensors, metadata = read_weights_file(path)
    kind = kind_of(tensors)
    if kind in (None, OURS):
        raise _no_checkpoint(path, tensors)
    noted = metadata.get("branch")
    if None not in (branch, noted) and branch != noted:
        raise WeightsError(
            f"{path} was converted from a {noted} branch, as its notes say, and is no {branch} "
            f"branch; choose --branch {noted}, or leave that out"
        )
    named = settle_aliases(to_ours(tensors, branch or noted or "clip"), str(path))
    return Checkpoint(str(kind), named, {**metadata, "arch": _arch_of(named, metadata)})


def _is_ours(path: Path) -> bool:
    """Tells whether a safetensors file bears our mark; a damaged one does, for the error's sake."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT_NAME
    except (OSError, SafetensorError):
        return True


def find_checkpoint(
    location: str | os.PathLike[str], tell: Callable[[str], object] | None = None
) -> Path:
    """Finds the checkpoint that a configuration means.

    Args:
        location: A checkpoint file, a run directory, a folder of run directories (the newest
            finished run that holds a checkpoint is taken; if none is finished, the newest), or the
            address of a file that has been downloaded. Best goes before last.
        tell: Gets a sentence where an unfinished run of the folder was taken or passed over.

    Raises:
        WeightsError: If there is none.
    """
    path = locate(os.fspath(location))
    if path.is_file():
        return path
    own = _checkpoint_in(path)
    if own is not None:
        return own
    runs = sorted(
        (run for run in path.glob("*") if run.is_dir() and not run.name.startswith(".")),
        key=lambda run: run.name,
        reverse=True,
    )
    found = [file for file in map(_checkpoint_in, runs) if file is not None]
    if not found:
        raise WeightsError(
            f"no checkpoint at {path}: expected a .safetensors file, a run directory with "
            f"{' or '.join(CHECKPOINT_NAMES)}, or a folder of such runs"
        )
    newest = found[0]
    finished = next((file for file in found if not _is_unfinished(file.parent)), None)
    if tell is not None and finished is None:
        tell(
            f"{newest} is of a run that is not finished, and no other run in {path} is; it was "
            "stopped, or is still training"
        )
    elif tell is not None and finished != newest:
        tell(
            f"{finished} is taken: the newest run in {path}, {newest.parent.name}, is not "
            "finished; to take that one, name its directory"
        )
    return finished or newest


def _checkpoint_in(run: Path) -> Path | None:
    """Returns the checkpoint of a run directory, the best before the last; None if it has none."""
    files = (run / name for name in CHECKPOINT_NAMES)
    return next((file for file in files if file.is_file()), None)


def _is_unfinished(run: Path) -> bool:
    """Tells whether a run says that it is not finished; one that says nothing is taken as it is."""
    try:
        status = json.loads((run / RUN_STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(status, dict) and status.get("finished") is False
