"""Reading weights files and loading them with every key accounted for."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from lavis_msmedcap.common.errors import WeightsError

NOTES_ENTRY = "lavis_msmedcap"  # beside "model" in PyTorch files that we write
SHOWN_PROBLEMS = 80
FLOATS = "expected float32, float16 or bfloat16"
USUAL_CURE = (
    "Check that the file belongs to this model type and that sizes in the configuration are those "
    "it was trained with."
)
LAYER = re.compile(r"(.*?\.(?:layer|layers|blocks)\.)(\d+)(\..*)")
HEAD_BYTES = 1024  # enough to tell what a file is
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch files begin, new and old
LFS_POINTER = b"version https://git-lfs"
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FLOAT_TYPES = (torch.float64, *PRECISIONS.values())  # of smaller ones every reader has its own idea


def require_weights_file(path: Path) -> None:
    """Refuses what is no weights file at a first look: text, a web page, a Git-LFS pointer.

    Raises:
        WeightsError: Naming the file, what it is, and the cure.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error}") from error
    what = _text_kind(head)
    if what is not None:
        raise WeightsError(f"{path} is not a weights file: it is {what}")


def _text_kind(head: bytes) -> str | None:
    """Says which kind of text a file's first bytes are, None if they are binary."""
    if not head:
        return "empty; download or copy it again"
    if head.startswith(LFS_POINTER):
        return (
            "a Git-LFS pointer, which stands for the real file; run `git lfs pull`, or download it "
            "again"
        )
    text = head.decode("utf-8", errors="ignore")  # the last character may be cut
    binary = any(ord(c) < 32 and c not in "\t\n\r\f" for c in text)
    if binary or len(text.encode()) < len(head) - 3:
        return None
    start = text.lstrip("\ufeff \t\r\n").lower()
    if start.startswith(("<!doctype", "<html", "<?xml", "<head")):
        return "a web page; download it again, from the address of the file itself"
    if start.startswith(("{", "[")):
        return "JSON; name the file that holds the tensors"
    return "text; name the file that holds the tensors"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads the tensors of a foreign weights file, see `read_weights_file`."""
    return read_weights_file(path)[0]


def read_weights_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a foreign weights file: safetensors, or a PyTorch file without executable content.

    A PyTorch file whose tensors stand under ``model`` or ``state_dict`` is unwrapped.

    Returns:
        Tensors by name, and the strings that this package wrote beside them (a safetensors file's
        header; the entry ``lavis_msmedcap`` of a PyTorch file); empty for others' files.

    Raises:
        WeightsError: If the file is missing, damaged, or holds anything but tensors and plain
            containers.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist")
    require_weights_file(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                notes = file.metadata()
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            notes = content.get(NOTES_ENTRY) if isinstance(content, dict) else None
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            raise WeightsError(
                f"{path} is not a weights file: it begins like neither a PyTorch nor a safetensors "
                "file (whose name must end in .safetensors)"
            ) from error
        raise WeightsError(
            f"{path} holds Python objects besides tensors; such files can run code when opened and "
            "are refused. Convert it to safetensors on a machine that you trust it on"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"weights file {path} is damaged: {error}") from error
    tensors = _tensors_in(content, path)
    if not isinstance(notes or {}, dict):
        raise WeightsError(
            f"weights file {path}: its entry {NOTES_ENTRY!r} is {notes!r:.40}; expected a "
            "mapping, the notes of this package. Write the file again, or take that entry out"
        )
    return tensors, {str(key): str(value) for key, value in (notes or {}).items()}


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    """Takes the tensors by name out of what a file holds."""
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    items = content.items() if isinstance(content, dict) else ()
    tensors = {name: value for name, value in items if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"weights file {path} holds no tensors")
    nameless = [key for key in tensors if not isinstance(key, str)]
    if nameless:
        raise WeightsError(
            f"weights file {path} has a tensor under the key {nameless[0]!r}; expected names, as "
            "state_dict() of a network gives them"
        )
    return tensors


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ZIP)).startswith((ZIP, PICKLE))


@dataclass
class LoadReport:
    """What became of every key of a load.

    Attributes:
        source: Where the weights came from.
        loaded: Number of tensors loaded.
        expected_missing: Reason to the names that the network keeps from its initialisation.
        expected_unused: Reason to the names in the file that the network has no place for.
    """

    source: str
    loaded: int = 0
    expected_missing: dict[str, list[str]] = field(default_factory=dict)
    expected_unused: dict[str, list[str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Returns the report as text lines for the log."""
        lines = [f"loaded {self.loaded} tensors from {self.source}"]
        for reason, names in self.expected_missing.items():
            lines.append(f"  not in the file, as expected ({reason}): {len(names)}")
        for reason, names in self.expected_unused.items():
            lines.append(f"  in the file, not needed ({reason}): {len(names)}")
        return lines


@dataclass(frozen=True)
class ExpectedKeys:
    """Keys that may be missing or unused, with the reason.

    Attributes:
        missing: Regular expression, searched in a network key, to the reason why the file may lack
            it.
        unused: Regular expression, searched in a file key, to the reason why the network may lack
            it.
    """

    missing: Mapping[str, str] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)


@torch.no_grad()
def load_strict(
    targets: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    source: str,
    expected: ExpectedKeys | None = None,
    cure: str = USUAL_CURE,
) -> LoadReport:
    """Copies weights into tensors by name; anything that cannot be explained is an error.

    Nothing is copied when there is an error.

    Args:
        targets: Tensors to fill, by name.
        weights: Tensors of the file, under the same names.
        source: Named in messages.
        expected: Keys that may be missing or unused.
        cure: What to do about an error, told at its end.

    Raises:
        WeightsError: Listing missing, unexpected, wrongly shaped and non-finite tensors, those of a
            quantised type where the network computes with fractions, and float64 ones beyond the
            range of the type that they are copied into.
    """
    expected = expected or ExpectedKeys()
    report = LoadReport(source)
    problems = []
    missing = [name for name in targets if name not in weights]
    report.expected_missing, rest = explain(missing, expected.missing)
    problems += [f"missing: {name}" for name in gather_layers(rest)]
    count = len(rest)
    unused = [name for name in weights if name not in targets]
    report.expected_unused, rest = explain(unused, expected.unused)
    problems += [f"unexpected: {name}" for name in gather_layers(rest)]
    count += len(rest)
    common = [name for name in targets if name in weights]
    unfit = []
    mistyped: dict[str, list[str]] = {}
    for name in common:
        have, want = tuple(weights[name].shape), tuple(targets[name].shape)
        if have != want:
            unfit.append(f"wrong shape: {name} is {have} in the file, {want} in the network")
        elif targets[name].is_floating_point() and weights[name].dtype not in FLOAT_TYPES:
            mistyped.setdefault(str(weights[name].dtype).removeprefix("torch."), []).append(name)
        elif not bool(torch.isfinite(weights[name]).all()):
            unfit.append(f"not finite: {name}")
        elif _overflows(weights[name], targets[name]):
            unfit.append(f"too large: {name} does not fit the range of {targets[name].dtype}")
    problems += unfit
    for kind, names in mistyped.items():
        count += len(names)
        problems += [
            f"wrong type: {name} holds {kind} in the file, quantised perhaps; {FLOATS}"
            for name in gather_layers(names)
        ]
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])
        hidden = len(problems) - SHOWN_PROBLEMS
        more = f"\n  and {hidden} more" if hidden > 0 else ""
        raise WeightsError(
            f"{source} does not fit the network ({count + len(unfit)} keys):\n{shown}{more}\n{cure}"
        )
    for name in common:
        targets[name].copy_(weights[name])
    report.loaded = len(common)
    return report


def _overflows(value: Tensor, target: Tensor) -> bool:
    """Tells whether finite float64 values become infinite in the type of the target.

    Types of fewer bits fit those that trained parts are held in; for frozen ones there is
    `refuse_overflow`, which names the key of their precision.
    """
    if value.dtype != torch.float64 or not target.is_floating_point():
        return False
    return not bool(torch.isfinite(value.to(target.dtype)).all())


def refuse_overflow(network: nn.Module, source: str, precision: str, key: str) -> None:
    """Refuses weights that are finite in their file, but not in the type they are held in.

    Args:
        network: Filled and converted.
        source: Where the weights came from, for messages.
        precision: What they were converted to.
        key: Configuration key of the precision.

    Raises:
        WeightsError: Naming the first such tensor.
    """
    for name, parameter in network.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise WeightsError(
                f"{source}: {name} does not fit the range of {precision}; use bf16 or fp32 ({key})"
            )


def explain(
    names: Iterable[str], reasons: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str]]:
    """Sorts names by the first reason whose pattern fits; returns also the rest."""
    explained: dict[str, list[str]] = {}
    rest = []
    for name in names:
        reason = next((why for fits, why in reasons.items() if re.search(fits, name)), None)
        if reason is None:
            rest.append(name)
        else:
            explained.setdefault(reason, []).append(name)
    return explained, rest


def gather_layers(names: Iterable[str]) -> list[str]:
    """Writes names that differ in the number of their layer as one: ``layer.{0,2,4}.output``.

    So that a message can name all tensors of a network and still be read.
    """
    numbers: dict[tuple[str, str], list[str]] = {}
    for name in names:
        match = LAYER.fullmatch(name)
        head, number, tail = match.groups() if match else (name, "", "")
        numbers.setdefault((head, tail), []).append(number)
    return [
        f"{head}{{{','.join(found)}}}{tail}" if len(found) > 1 else f"{head}{found[0]}{tail}"
        for (head, tail), found in numbers.items()
    ]


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the trainable parameters by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
