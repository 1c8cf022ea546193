"""The ``msmedcap`` command.

A subcommand is one entry of ``COMMANDS``: a name, a line of help, a function that adds arguments,
and a function that runs. What a subcommand needs is imported when it runs, so that ``--help`` and
``version`` answer at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lavis_msmedcap
from lavis_msmedcap import (
    convert_checkpoint,
    data_command,
    doctor,
    evaluate,
    train,
    weights_command,
)
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.startup import prepare_process


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: What the user types behind ``msmedcap``.
        help: One line.
        add_arguments: Adds its arguments to its parser.
        run: Does the work and may return an exit code; our own errors become one message and 2.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def _train(args: argparse.Namespace) -> None:
    train.run(args.cfg_path, args.options, ends=args.ends)


def _evaluate(args: argparse.Namespace) -> None:
    train.run(args.cfg_path, args.options, evaluate.OVERRIDES, ends=args.ends)


def _add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, help="folder for it; default: in the cache")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other images")


def _phantom(args: argparse.Namespace) -> None:
    from lavis_msmedcap.phantom import ensure_phantom

    _write(f"{ensure_phantom(args.root, seed=args.seed)}\n")


def _add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cfg_path", metavar="FILE", help="run configuration, YAML")
    train.add_options_argument(parser)


def _config(args: argparse.Namespace) -> None:
    prepare_process()
    from lavis_msmedcap.run_config import resolve_stages

    stages = resolve_stages(args.cfg_path, args.options)
    for config, _ in stages:
        _write(f"# {config.banner()}\n# {config.source}, with all defaults and options\n")
        _write(f"{config.to_yaml()}")
        _write("".join(f"# {note}\n" for note in config.notes))
    problems = [problem for _, found in stages for problem in found]
    if problems:
        raise ConfigError(problems, str(stages[0][0].source))
    _write("# checked: no problems\n")


def _weights(args: argparse.Namespace) -> int:
    prepare_process()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return weights_command.run(args)


def _add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cfg-path", required=True, metavar="FILE", help="run configuration, YAML")
    train.add_options_argument(parser)
    parser.add_argument("--batch-size", type=int, metavar="N", help="instead of the run's two")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="that share the LLM where run.shard_llm is true",
    )
    parser.add_argument("--gpu-gib", type=float, metavar="GIB", help="say what to change to fit")


def _memory(args: argparse.Namespace) -> None:
    prepare_process()
    from lavis_msmedcap.memory.report import describe
    from lavis_msmedcap.run_memory import plans_of

    for stage, plan in plans_of(
        args.cfg_path, args.options, args.batch_size, args.processes
    ).items():
        _write(f"stage {stage} of {args.cfg_path}\n\n" if stage else "")
        prefix = f"stages.{stage}." if stage else ""
        _write(describe(plan, args.gpu_gib, prefix) + ("\n" if stage else ""))


def _no_arguments(_: argparse.ArgumentParser) -> None:
    pass


def _version(_: argparse.Namespace) -> None:
    _write(f"lavis_msmedcap {lavis_msmedcap.__version__}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)


COMMANDS = (
    Command("train", "train a model from a YAML file", train.add_run_arguments, _train),
    Command("evaluate", "evaluate a trained model", train.add_run_arguments, _evaluate),
    Command("phantom", "generate the phantom data sets", _add_phantom_arguments, _phantom),
    Command("config", "print a resolved configuration, checked", _add_config_arguments, _config),
    Command("weights", "list or download weights", weights_command.add_arguments, _weights),
    Command("data", "check or convert data sets", data_command.add_arguments, data_command.run),
    Command("doctor", "what this machine lacks", doctor.add_arguments, doctor.run),
    Command(
        "convert-checkpoint",
        "convert a checkpoint to the names of BLIP-2 or of the authors' code, and back",
        convert_checkpoint.add_arguments,
        convert_checkpoint.run,
    ),
    Command("memory", "estimate the GPU memory of a run", _add_memory_arguments, _memory),
    Command("version", "print the version", _no_arguments, _version),
)


def build_parser() -> argparse.ArgumentParser:
    """Makes the parser with all subcommands."""
    parser = argparse.ArgumentParser("msmedcap", description="Medical image captioning for LAVIS.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = commands.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand.

    Args:
        argv: Arguments; those of the command line if None.

    Returns:
        Exit code, see `train.guarded`.
    """
    args = build_parser().parse_args(argv)
    args.ends = argv is None
    return train.guarded(lambda: args.run(args))


if __name__ == "__main__":
    sys.exit(main())
