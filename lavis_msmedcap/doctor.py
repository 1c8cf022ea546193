"""``msmedcap doctor``: what this machine has and lacks, for a configuration or in general.

A check is a function that returns findings; nothing is built, written or downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavis_msmedcap import train
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.common.startup import prepare_process
from lavis_msmedcap.doctor_findings import MISSING, NOTE, OK, Finding
from lavis_msmedcap.doctor_machine import check_disk, check_gpu, check_java
from lavis_msmedcap.doctor_packages import check_packages

if TYPE_CHECKING:
    from lavis_msmedcap.run_config import RunConfig


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
    if args.cfg_path:
        sections, outputs = _of_file(args.cfg_path, args.options)
    else:
        sections = {"weights (--cfg-path FILE shows what a configuration needs):": _catalog()}
    general = [*check_packages(), *check_gpu(), *check_java(), *check_disk(outputs)]
    sections = {"this machine:": general, **sections}
    for head, findings in sections.items():
        sys.stdout.write(f"{head}\n")
        for finding in findings:
            sys.stdout.write(f"  {finding.status:<8} {finding.text}\n")
    # what several stages lack is one thing
    lacking = len({f.text for found in sections.values() for f in found if f.status == MISSING})
    sys.stdout.write(f"{lacking or 'nothing'} missing\n")
    return 1 if lacking else 0


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
        outputs[resolve_path(str(config.run_cfg.get("output_dir") or "output"))] = None
    return sections, list(outputs)


def _of_configuration(config: RunConfig, told: Sequence[str]) -> list[Finding]:
    """Checks a configuration: each of its weights, and all of its other problems."""
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
    return [*found, *(Finding(MISSING, problem) for problem in told)]


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
