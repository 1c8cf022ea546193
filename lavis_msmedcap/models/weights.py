"""Reading weights files and loading them with every key accounted for."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lavis_msmedcap.common.errors import WeightsError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a foreign weights file: safetensors, or a PyTorch file without executable content.

    A PyTorch file whose tensors stand under ``model`` or ``state_dict`` is unwrapped.

    Raises:
        WeightsError: If the file is missing, damaged, holds anything but tensors and plain
            containers, or a weight that is not finite.
    """
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist")
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds Python objects besides tensors; such files can run code when opened and "
            "are refused. Convert it to safetensors on a machine that you trust it on"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise WeightsError(f"weights file {path} is damaged: {error}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"weights file {path} holds no tensors")
    return tensors


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
) -> LoadReport:
    """Copies weights into tensors by name; anything that cannot be explained is an error.

    Nothing is copied when there is an error.

    Args:
        targets: Tensors to fill, by name.
        weights: Tensors of the file, under the same names.
        source: Named in messages.
        expected: Keys that may be missing or unused.

    Raises:
        WeightsError: Listing missing, unexpected, wrongly shaped and non-finite tensors.
    """
    expected = expected or ExpectedKeys()
    report = LoadReport(source)
    problems = []
    missing = [name for name in targets if name not in weights]
    report.expected_missing, rest = _explain(missing, expected.missing)
    problems += [f"missing: {name}" for name in rest]
    unused = [name for name in weights if name not in targets]
    report.expected_unused, rest = _explain(unused, expected.unused)
    problems += [f"unexpected: {name}" for name in rest]
    common = [name for name in targets if name in weights]
    for name in common:
        have, want = tuple(weights[name].shape), tuple(targets[name].shape)
        if have != want:
            problems.append(f"wrong shape: {name} is {have} in the file, {want} in the network")
        elif not bool(torch.isfinite(weights[name]).all()):
            problems.append(f"not finite: {name}")
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise WeightsError(
            f"{source} does not fit the network ({len(problems)} of its keys):\n{shown}{more}\n"
            "Check that the file belongs to this model type and that sizes in the configuration "
            "are those it was trained with."
        )
    for name in common:
        targets[name].copy_(weights[name])
    report.loaded = len(common)
    return report


def _explain(
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


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the trainable parameters by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
