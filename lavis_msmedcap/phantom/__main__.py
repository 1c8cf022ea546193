"""``python -m lavis_msmedcap.phantom``: makes a phantom set and writes its folder to stdout."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.phantom.generate import DEFAULT, PhantomSizes, ensure_phantom


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, makes the set, and returns the exit code.

    Args:
        arguments: Words after the program's name; default: those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lavis_msmedcap.phantom",
        description="Makes a small seeded image-caption set in the on-disk formats of COCO 2014, "
        "ROCO, MedICaT, ROCOv2 and of a table, unless it is there already, and prints its folder.",
    )
    parser.add_argument(
        "--root", type=Path, help="folder that holds the sets (default: the package's cache)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed (default: 0)")
    for name, default in asdict(DEFAULT).items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=int, default=default, help=f"images (default: {default})")
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        sizes = PhantomSizes(**{field.name: options[field.name] for field in fields(PhantomSizes)})
        folder = ensure_phantom(options["root"], seed=options["seed"], sizes=sizes)
    except MSMedCapError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
