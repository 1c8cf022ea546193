"""``msmedcap data``: what a data set holds, and writing it anew."""

from __future__ import annotations

import argparse

from lavis_msmedcap import data_convert_command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    about = data_convert_command.HELP
    convert = actions.add_parser("convert", help=about, description=about)
    data_convert_command.add_arguments(convert)
    convert.set_defaults(run_action=data_convert_command.run)


def run(args: argparse.Namespace) -> int | None:
    """Runs the action that was asked for."""
    code: int | None = args.run_action(args)
    return code
