"""``python -m lavis.evaluate --cfg-path FILE [--options key=value ...]``: evaluation only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lavis_msmedcap.train import add_run_arguments, guarded, run

OVERRIDES = {"run": {"evaluate": True}}


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluates as the arguments say; ``run.evaluate`` is true whatever the file says.

    Args:
        argv: Arguments; those of the command line if None.

    Returns:
        Exit code, see `train.guarded`.
    """
    parser = argparse.ArgumentParser(
        "lavis.evaluate", description="Evaluates a trained model on the splits in run.test_splits."
    )
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: run(args.cfg_path, args.options, OVERRIDES, ends=argv is None))


if __name__ == "__main__":
    sys.exit(main())
