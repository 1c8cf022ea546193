"""``msmedcap data``: what can be done with data sets besides training on them."""

from __future__ import annotations

import argparse

from lavis_msmedcap import data_check_command, data_convert_command

# each has a line of HELP and the functions add_arguments and run
ACTIONS = {"check": data_check_command, "convert": data_convert_command}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    for name, module in ACTIONS.items():
        added = actions.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(added)
        added.set_defaults(run_action=module.run)


def run(args: argparse.Namespace) -> int | None:
    """Runs the action that was asked for."""
    code: int | None = args.run_action(args)
    return code
