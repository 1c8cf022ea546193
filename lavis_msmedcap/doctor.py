"""``msmedcap doctor``: what this machine has and lacks, for a configuration or in general.

A check is a function that returns findings; nothing is built, written or downloaded.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_msmedcap import train
from lavis_msmedcap.common.paths import cache_root, resolve_path
from lavis_msmedcap.common.startup import prepare_process

DISTRIBUTION = "lavis-msmedcap"
SHOWN_PACKAGES = ("salesforce-lavis", "torch", "torchvision", "transformers", "segment-anything")
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
LITTLE_SPACE = 5_000_000_000  # bytes

OK, NOTE, MISSING = "ok", "note", "MISSING"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        status: ``OK``, ``NOTE`` (good to know) or ``MISSING`` (will not work).
        text: One line; where something is amiss, with the cure.
    """

    status: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "--cfg-path", metavar="FILE", help="run configuration whose needs are checked"
    )
    train.add_options_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Prints all findings.

    Returns:
        1 if something is missing, else 0. Without a configuration, weights that are not on this
        machine are no reason.
    """
    prepare_process()
    if args.cfg_path:
        config, told = _of_configuration(args.cfg_path, args.options)
        sections = {f"{args.cfg_path}:": told}
        output = resolve_path(str(config.run_cfg.get("output_dir") or "output"))
    else:
        sections = {"weights (--cfg-path FILE shows what a configuration needs):": _catalog()}
        output = resolve_path("output")
    general = [*check_packages(), *check_gpu(), *check_java(), *check_disk(output)]
    sections = {"this machine:": general, **sections}
    for head, findings in sections.items():
        sys.stdout.write(f"{head}\n")
        for finding in findings:
            sys.stdout.write(f"  {finding.status:<8} {finding.text}\n")
    lacking = sum(f.status == MISSING for findings in sections.values() for f in findings)
    sys.stdout.write(f"{lacking or 'nothing'} missing\n")
    return 1 if lacking else 0


# --- weights and the rest of a configuration -----------------------------------------------------


def _catalog() -> list[Finding]:
    from lavis_msmedcap.models.weight_catalog import CATALOG
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.models.weight_files import search_folders, state

    findings = [Finding(OK, f"looked for in {', '.join(map(str, search_folders()))}")]
    for name, entry in CATALOG.items():
        found, told = state(name)
        cure = "" if found else f"; msmedcap weights get {name}"
        text = f"{name} ({entry.what}, {show_size(entry.size)}), {told}{cure}"
        findings.append(Finding(OK if found else NOTE, text))
    return findings


def _of_configuration(cfg_path: str, options: Sequence[str]) -> tuple[Any, list[Finding]]:
    """Checks a configuration: each of its weights, and all of its other problems."""
    from lavis_msmedcap.common.config_check import check
    from lavis_msmedcap.config_schema import MODEL_SCHEMAS
    from lavis_msmedcap.run_checks import is_own, registered
    from lavis_msmedcap.run_config import resolve_run_config

    config, told = resolve_run_config(cfg_path, options)
    model = config.to_dict()["model"]
    arch = model.get("arch")
    cls: Any = registered("model", arch)
    found: list[Finding] = []
    # a section with holes cannot be asked what it needs; its holes are among the problems
    if is_own(cls) and not check(model, MODEL_SCHEMAS[arch], "model", unknown=False):
        needs = cls.weight_needs(model)
        found = list(check_weights(needs, bool(model.get("offline", True)), told))
    return config, [*found, *(Finding(MISSING, problem) for problem in told)]


def check_weights(needs: Iterable[Any], offline: bool, told: Sequence[str]) -> Iterator[Finding]:
    """Tells of each weights file of a configuration whether it is there.

    Args:
        needs: Of the model, see `DualBranchModel.weight_needs`.
        offline: Whether downloads are forbidden.
        told: Problems of the configuration; what is among them is not told again.
    """
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.models.weight_files import entry_of, problems, state

    for need in needs:
        if set(problems([need], offline)) & set(told):
            continue
        found, phrase = state(need.reference, need.part)
        if found is None:  # not offline, so it is
            size = show_size(entry_of(need.reference).size)
            phrase = f"will be downloaded at the start ({size})"
        status = OK if found else NOTE
        yield Finding(status, f"{need.key}: {need.reference}, {phrase}")


# --- the machine ---------------------------------------------------------------------------------


def check_packages() -> Iterator[Finding]:
    """Compares Python and the installed packages with what this package requires."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        own = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        yield Finding(NOTE, f"{DISTRIBUTION} is not installed; its requirements are not checked")
        return
    python = platform.python_version()
    wanted = SpecifierSet(own.metadata["Requires-Python"] or "")
    cure = "" if python in wanted else f"; {DISTRIBUTION} needs {wanted}: make an environment of it"
    yield Finding(MISSING if cure else OK, f"Python {python}{cure}")
    for line in own.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _check_package(requirement)


def _check_package(requirement: Any) -> Iterator[Finding]:
    name = requirement.name
    wanted = f"'{name}{requirement.specifier}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        yield Finding(MISSING, f"{name} is not installed: pip install {wanted}")
        return
    if not requirement.specifier.contains(version, prereleases=True):
        yield Finding(MISSING, f"{name} {version} does not fit: pip install {wanted}")
    elif name in SHOWN_PACKAGES:
        yield Finding(OK, f"{name} {version}")


def check_gpu() -> Iterator[Finding]:
    """Looks for a GPU that the installed torch can use."""
    import torch

    built = torch.version.cuda
    driver = NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _check_device(index)
    elif not driver:
        yield Finding(NOTE, "no GPU: enough for scale demo, not for scale paper")
    elif built is None:
        yield Finding(
            MISSING,
            "an NVIDIA driver is here, but this torch was built without CUDA; install a build of "
            "torch for CUDA, see pytorch.org",
        )
    else:
        yield Finding(
            MISSING,
            f"an NVIDIA driver is here, but torch, built for CUDA {built}, sees no GPU; the driver "
            "may be too old for it (nvidia-smi shows the newest CUDA that it serves), or "
            "CUDA_VISIBLE_DEVICES hides the GPU",
        )


def _check_device(index: int) -> Finding:
    import torch

    name = torch.cuda.get_device_name(index)
    memory = torch.cuda.get_device_properties(index).total_memory
    try:
        torch.zeros(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        return Finding(
            MISSING,
            f"GPU {index}, {name}: torch for CUDA {torch.version.cuda} cannot compute on it "
            f"({first}); install a build of torch for this GPU, see pytorch.org",
        )
    told = f"GPU {index}: {name}, {memory / 1e9:.0f} GB, CUDA {torch.version.cuda}"
    return Finding(OK, told)


def check_java() -> Iterator[Finding]:
    """Looks for Java, which METEOR and the original tokenizer of COCO need."""
    from lavis_msmedcap.evaluation.metrics.java import JavaError, find_java

    try:
        yield Finding(OK, f"Java: {find_java()}")
    except JavaError as error:
        yield Finding(NOTE, f"Java: {error}; without it there is no METEOR")


def check_disk(output: Path) -> Iterator[Finding]:
    """Looks at the folders that are written to: free space, and whether that is allowed."""
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.models.weight_files import download_folder

    places = {"cache": cache_root(), "downloads": download_folder(), "output": output}
    for what, folder in places.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            yield Finding(MISSING, f"{what}: {folder} cannot be written; {_folder_cure(what)}")
            continue
        free = shutil.disk_usage(existing).free
        status = OK if free >= LITTLE_SPACE else NOTE
        yield Finding(status, f"{what}: {folder}, {show_size(free)} free")


def _folder_cure(what: str) -> str:
    if what == "output":
        return "set run.output_dir to another folder"
    variable = "LAVIS_MSMEDCAP_CACHE" if what == "cache" else "LAVIS_MSMEDCAP_WEIGHTS"
    return f"set {variable} to another folder"
