"""``msmedcap doctor``: what this machine has and lacks, for a configuration or in general.

A check is a function that returns findings; nothing is built or downloaded, and no file is left.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_msmedcap import train
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.common.startup import prepare_process
from lavis_msmedcap.doctor_findings import MISSING, NOTE, OK, Finding
from lavis_msmedcap.doctor_machine import (
    check_disk,
    check_download_space,
    check_gpu,
    check_java,
    check_torchvision,
)
from lavis_msmedcap.doctor_needs import check_needs
from lavis_msmedcap.doctor_packages import check_packages

if TYPE_CHECKING:
    from lavis_msmedcap.memory.advice import Plan
    from lavis_msmedcap.run_config import RunConfig

WEIGHTS = "weights (--cfg-path FILE shows what a configuration needs):"


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
    outputs = [resolve_path("output")]
    broken = _asked("torchvision", check_torchvision)
    sections: dict[str, list[Finding]] = {}
    try:
        # without torchvision nothing can be imported that reads a configuration or lists weights
        if args.cfg_path and not broken:
            sections, outputs = _of_file(args.cfg_path, args.options)
        elif not broken:
            sections = {WEIGHTS: _catalog()}
    except ImportError as error:
        sections = {f"{args.cfg_path or WEIGHTS}": [_unasked("weights", error)]}
    general = [
        *_asked("packages", check_packages),
        *broken,
        *_asked("GPU", check_gpu),
        *_asked("Java", check_java),
        *_asked("disk", lambda: check_disk(outputs)),
    ]
    sections = {"this machine:": general, **sections}
    for head, findings in sections.items():
        sys.stdout.write(f"{head}\n")
        for finding in findings:
            sys.stdout.write(f"  {finding.status:<8} {finding.text}\n")
    # what several stages lack is one thing
    lacking = len({f.text for found in sections.values() for f in found if f.status == MISSING})
    sys.stdout.write(f"{lacking or 'nothing'} missing\n")
    return 1 if lacking else 0


def _asked(what: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Returns the findings of a check, also where a package is absent that it needs."""
    try:
        return list(check())
    except ImportError as error:
        return [_unasked(what, error)]


def _unasked(what: str, error: ImportError) -> Finding:
    return Finding(MISSING, f"{what}: cannot be checked ({error}); install the packages first")


def _catalog() -> list[Finding]:
    from lavis_msmedcap.models.weight_catalog import CATALOG
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.models.weight_files import search_folders, state, wrong_sizes

    findings = [Finding(OK, f"looked for in {', '.join(map(str, search_folders()))}")]
    for name, entry in CATALOG.items():
        found, told = state(name)
        for wrong in wrong_sizes(name, found) if found else ():
            findings.append(Finding(MISSING, f"{name}: {wrong}"))
        cure = "" if found else f"; msmedcap weights get {name}"
        text = f"{name} ({entry.what}, {show_size(entry.size)}), {told}{cure}"
        findings.append(Finding(OK if found else NOTE, text))
    return findings


# --- configurations ------------------------------------------------------------------------------


def _of_file(cfg_path: str, options: Sequence[str]) -> tuple[dict[str, list[Finding]], list[Path]]:
    """Checks each stage of a file; returns findings by head, and where the stages write."""
    from lavis_msmedcap.run_config import resolve_stages

    sections: dict[str, list[Finding]] = {}
    outputs: dict[Path, None] = {}
    for config, told in resolve_stages(cfg_path, options):
        head = f"{cfg_path}, stage {config.stage}:" if config.stage else f"{cfg_path}:"
        bare = [problem.removeprefix(config.prefix) for problem in told]
        sections[head] = _of_configuration(config, bare)
        outputs[_output_of(config)] = None
    return sections, list(outputs)


def _of_configuration(config: RunConfig, told: Sequence[str]) -> list[Finding]:
    """Checks a configuration: its weights, what it needs else, and all of its other problems."""
    from lavis_msmedcap.common.config_check import check
    from lavis_msmedcap.models.settings_schema import MODEL_SCHEMAS
    from lavis_msmedcap.run_checks import is_own, registered

    model = config.to_dict()["model"]
    arch = model.get("arch")
    cls: Any = registered("model", arch)
    found: list[Finding] = []
    # a section with holes cannot be asked what it needs; its holes are among the problems
    if is_own(cls) and not check(model, MODEL_SCHEMAS[arch], "model", unknown=False):
        needs = cls.weight_needs(model)
        found = list(check_weights(needs, bool(model.get("offline", True)), told))
        if not any(problem.startswith("run.") for problem in told):
            found += check_needs(config.to_dict(), _output_of(config), _plan_of(config))
    lacking = [finding.text for finding in found]
    return [*found, *(Finding(MISSING, problem) for problem in told if problem not in lacking)]


def _output_of(config: RunConfig) -> Path:
    return resolve_path(str(config.run_cfg.get("output_dir") or "output"))


def _plan_of(config: RunConfig) -> Plan | None:
    """Returns the sizes of the model, None if they are unknown without its files."""
    import torch

    from lavis_msmedcap.common.errors import WeightsError
    from lavis_msmedcap.run_memory import plan_of

    try:
        return plan_of(config.to_dict(), processes=max(1, torch.cuda.device_count()))
    except WeightsError:
        return None


def check_weights(needs: Iterable[Any], offline: bool, told: Sequence[str]) -> Iterator[Finding]:
    """Tells of each weights file of a configuration whether it is there.

    Args:
        needs: Of the model, see `DualBranchModel.weight_needs`.
        offline: Whether downloads are forbidden.
        told: Problems of the configuration; what is among them is not told again.
    """
    from lavis_msmedcap.models.weight_download import show_size
    from lavis_msmedcap.models.weight_files import entry_of, problems, state, wrong_sizes

    coming: dict[str, int] = {}
    for need in needs:
        if set(problems([need], offline)) & set(told):
            continue
        found, phrase = state(need.reference, need.part)
        if found is None:  # not offline, so it is
            size = entry_of(need.reference).size
            coming[need.reference] = size or 0
            phrase = f"will be downloaded at the start ({show_size(size)})"
        for wrong in wrong_sizes(need.reference, found) if found else ():
            yield Finding(MISSING, f"{need.key}: {wrong}")
        status = OK if found else NOTE
        yield Finding(status, f"{need.key}: {need.reference}, {phrase}")
    yield from check_download_space(sum(coming.values()))
