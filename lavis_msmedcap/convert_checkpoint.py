"""``msmedcap convert-checkpoint SOURCE TARGET --to KIND``: to BLIP-2 and the authors, and back."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.common.startup import prepare_process

KINDS = ("ours", "blip2", "authors")
ARCHS = ("blip2_dual_qformer", "msmedcap")
EXAMPLES = """
kinds (that of SOURCE shows in its names):
  ours     checkpoints of this package: one or both branches, safetensors
  blip2    LAVIS' BLIP-2: one branch; runs in stock blip2, blip2_feature_extractor and blip2_opt
  authors  the authors' MSMedCap: CLIP branch as in BLIP-2, SAM branch with sam_ in front

examples:
  msmedcap convert-checkpoint output/msmedcap/caption blip2.pth --to blip2 --branch clip
  msmedcap convert-checkpoint stage2.pth ours.safetensors --to ours \\
                              --cfg-path projects/msmedcap/caption.yaml --options scale=authors
  msmedcap convert-checkpoint ours.safetensors authors.pth --to authors

Values are never changed: there and back gives the same bits. A .pth target is what LAVIS reads
(model.finetuned, model.pretrained, load_checkpoint); frozen encoders and the LLM are in none.
To run a checkpoint here there is no need to convert it: model.finetuned, model.stage1 and
model.branches.<name>.init take all three kinds.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the subcommand."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "source", metavar="SOURCE", help="checkpoint file, or run directory of ours"
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        type=Path,
        help="file to write: .safetensors, or .pth (blip2, authors)",
    )
    parser.add_argument("--to", required=True, choices=KINDS, help="kind of TARGET")
    parser.add_argument(
        "--branch",
        choices=("clip", "sam"),
        help="the only branch to convert; of a BLIP-2 SOURCE: which branch it is (default: the one "
        "it was converted from, else clip)",
    )
    parser.add_argument(
        "--layer-norm",
        metavar="FILE",
        help="for a CLIP branch to blip2 or authors: the file with the layer norm behind the ViT "
        "(default: the files that the settings of the training name)",
    )
    parser.add_argument(
        "--cfg-path",
        metavar="FILE",
        help="run configuration of the training, for a SOURCE that does not carry its settings; "
        "what SOURCE tells of them must agree, and stays",
    )
    parser.add_argument(
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings over those of --cfg-path, for example scale=paper",
    )
    parser.add_argument(
        "--arch", choices=ARCHS, help="to ours without --cfg-path: the model, its settings left out"
    )
    parser.add_argument("--force", action="store_true", help="overwrite TARGET")


def run(args: argparse.Namespace) -> None:
    """Converts as the arguments say, and prints what became of every key.

    Raises:
        WeightsError: If the checkpoint cannot be converted.
        ConfigError: If the arguments do not fit together, or the run configuration is not that of
            the checkpoint's training.
    """
    _check_target(args.target, args.to, args.force)
    prepare_process()
    from safetensors import SafetensorError

    from lavis_msmedcap.models.checkpoint_settings import trained_settings
    from lavis_msmedcap.models.checkpoints import (
        ADDED,
        find_checkpoint,
        read_any_checkpoint,
        save_checkpoint,
        save_foreign,
    )
    from lavis_msmedcap.models.conversion import convert
    from lavis_msmedcap.models.conversion_settings import compare_settings

    told: list[str] = []
    path = find_checkpoint(args.source, told.append)
    checkpoint = read_any_checkpoint(path, args.branch)
    if checkpoint.kind == args.to and args.branch is None:
        raise WeightsError(f"{path} has the names of {args.to} already; choose another --to")
    settings = own = trained_settings(checkpoint.metadata)
    if args.cfg_path is not None:
        settings = _model_settings(args, checkpoint.metadata.get("arch"))
        told += compare_settings(settings, checkpoint, str(path), args.cfg_path)
        checkpoint.metadata["model"] = json.dumps(own or settings)
    elif args.to == "ours":
        _require_settings(args, checkpoint.metadata, path)
    norm = _layer_norm(args, checkpoint, settings)
    converted = convert(checkpoint, args.to, str(path), args.branch, norm)
    save = save_checkpoint if args.to == "ours" else save_foreign
    try:
        args.target.parent.mkdir(parents=True, exist_ok=True)
        save(args.target, converted.tensors, converted.metadata)
    except (OSError, RuntimeError, SafetensorError) as error:  # of torch and safetensors too
        problem = f"TARGET {args.target} cannot be written ({error}); choose another place"
        raise ConfigError([problem]) from error
    added = len(json.loads(converted.metadata.get(ADDED, "[]")))
    lines = [
        f"{path}: names of {checkpoint.kind}",
        *told,
        *converted.report.lines(),
        f"wrote {len(converted.tensors)} tensors to {args.target}",
        *([f"  added (second names, layer norm): {added}"] if added else []),
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _check_target(target: Path, kind: str, force: bool) -> None:
    suffixes = (".safetensors",) if kind == "ours" else (".pth", ".safetensors")
    if target.suffix not in suffixes:
        raise ConfigError(
            [f"TARGET is {target}; for --to {kind} end it in {' or '.join(suffixes)}"]
        )
    if target.exists() and not force:
        raise ConfigError([f"{target} exists; choose another name, or --force to overwrite it"])


def _model_settings(args: argparse.Namespace, arch: str | None) -> dict[str, Any]:
    """Reads the ``model:`` section of the run configuration, checked but for the files it names."""
    from lavis_msmedcap.common.config_check import check
    from lavis_msmedcap.models.settings_schema import MODEL_SCHEMAS
    from lavis_msmedcap.run_config import resolve_run_config

    config, _ = resolve_run_config(args.cfg_path, args.options)
    settings: dict[str, Any] = config.to_dict()["model"]
    if settings.get("arch") != arch:
        raise ConfigError(
            [f"model.arch is {settings.get('arch')}, but the checkpoint is of a {arch}"],
            args.cfg_path,
        )
    problems = check(settings, MODEL_SCHEMAS[settings["arch"]], "model")
    if problems:
        raise ConfigError(problems, args.cfg_path)
    return settings


def _require_settings(args: argparse.Namespace, metadata: dict[str, str], path: Path) -> None:
    """Asks for the settings of a file of others; one that was converted from ours has its own."""
    from lavis_msmedcap.models.checkpoints import ADDED

    found = metadata.get("arch")
    if args.arch is not None and args.arch != found:
        raise WeightsError(f"{path} is of a {found} by its names, not of a {args.arch}")
    if not {"model", ADDED} & set(metadata) and args.arch is None:
        raise WeightsError(
            f"{path} does not say with which settings it was trained; give the run configuration "
            f"with --cfg-path, or --arch {found} to write a checkpoint without them"
        )


def _layer_norm(args: argparse.Namespace, checkpoint: Any, settings: dict[str, Any]) -> Any:
    """Returns the layer norm to add, None where none is needed or found."""
    from lavis_msmedcap.models.conversion import layer_norm_of_file, layer_norm_of_training

    if args.layer_norm is not None:
        found = layer_norm_of_file(args.layer_norm)
        if found is None:
            raise WeightsError(
                f"--layer-norm {args.layer_norm} has no layer norm of a ViT (ln_vision.weight, or "
                "ln.weight in an encoder's file of this package)"
            )
        return found
    has_clip = any(name.startswith("branches.clip.") for name in checkpoint.tensors)
    if args.to == "ours" or not has_clip or not (settings.get("branches") or {}).get("clip"):
        return None
    return layer_norm_of_training(settings, checkpoint.tensors)
