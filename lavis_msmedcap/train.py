"""``python -m lavis.train --cfg-path FILE [--options key=value ...]``: one training run."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lavis_msmedcap.common.errors import ConfigError, MSMedCapError, Preempted, SharedDataError
from lavis_msmedcap.common.startup import prepare_process
from lavis_msmedcap.common.whole_files import disk_error_of

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_LOST_PROCESS = 69  # sysexits.h: something that is needed is not there
EXIT_STORAGE = 74  # sysexits.h: an error while reading or writing files
EXIT_NOBODY_READS = 141  # what a shell says of a program that SIGPIPE has ended
EXIT_PREEMPTED = 75  # sysexits.h: a temporary failure, try again
PATIENCE = 30.0  # seconds
DEBUG = "LAVIS_MSMEDCAP_DEBUG"

EXAMPLES = """
examples:
  python -m lavis.train    --cfg-path projects/msmedcap/pretrain_mixed.yaml
  python -m lavis.train    --cfg-path projects/msmedcap/caption.yaml --options run.max_epoch=2
  python -m lavis.evaluate --cfg-path projects/msmedcap/evaluate.yaml
  python -m lavis.train    --cfg-path projects/msmedcap/pretrain_mixed.yaml \\
                           --options scale=paper run.batch_size_train=4 model.branches.clip=null
  torchrun --nproc_per_node=2 -m lavis.train --cfg-path projects/msmedcap/caption.yaml
  python -m lavis.train    --cfg-path projects/msmedcap/table1/msmedcap_g_gm.yaml
                           (a row of Table 1: three stages in a row; stages.pretrain=null leaves
                           one out, stages.caption.run.max_epoch=2 sets something in one)

where settings come from, later ones win:
  1. packaged defaults: configs/models/<arch>_<model_type>.yaml, configs/datasets/<name>/<type>.yaml
  2. the file of --cfg-path (the current directory first, then the copy in the package)
  3. its section scales.<scale>
  4. --options
The whole configuration is checked before anything is built, and all problems are told at once.
'msmedcap config FILE' prints it with all defaults. LAVIS' own configurations run as well.

environment:
  LAVIS_MSMEDCAP_CACHE    folder for generated and downloaded data (default ~/.cache/lavis_msmedcap)
  LAVIS_MSMEDCAP_WEIGHTS  folder of weights, searched after ./weights and before the cache
  LAVIS_MSMEDCAP_DEBUG    1 shows the traceback of errors that are otherwise told in one message
"""


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of LAVIS' ``train.py`` to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--cfg-path", required=True, metavar="FILE", help="run configuration, YAML")
    add_options_argument(parser)


def add_options_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--options``; the words behind several of them count together."""
    parser.add_argument(
        "--options",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings over those of the file, for example run.max_epoch=2 "
        "run.test_splits=[val] model.branches.sam=null (also in LAVIS' form: run.max_epoch 2)",
    )


def run(
    cfg_path: str,
    options: Sequence[str],
    overrides: Mapping[str, Any] | None = None,
    *,
    ends: bool = False,
) -> None:
    """Checks a configuration, all stages of it, and runs them.

    Args:
        cfg_path: YAML file.
        options: Words behind ``--options``.
        overrides: Nested settings that win over everything.
        ends: Whether the process ends with the run; it is deaf to signals then.

    Raises:
        ConfigError: Before anything is built.
    """
    prepare_process()
    # after the filter: these import LAVIS, which imports everything else
    from lavis_msmedcap.run_config import load_stages

    stages = load_stages(cfg_path, options, overrides)
    from lavis_msmedcap.launch import launch
    from lavis_msmedcap.runners.stopping import StopRequest

    request = StopRequest()
    # also while the processes of a run take leave of each other
    with request.listening(to_the_end=ends):
        launch(*stages, request=request)


def guarded(action: Callable[[], int | None]) -> int:
    """Runs something and turns our own errors into one message on stderr.

    Args:
        action: May return an exit code of its own.

    Returns:
        Exit code: that of the action or 0, 2 for wrong input, 69 if another process of the run has
        ended, 74 if the disk is full or cannot be written to, 130 if interrupted from the keyboard,
        or 75 if another signal asked a run to stop, which can be taken up.
    """
    try:
        code = action() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return EXIT_NOBODY_READS
    except (MSMedCapError, OSError) as error:
        own = isinstance(error, MSMedCapError) or disk_error_of(error) is not None
        if os.environ.get(DEBUG) == "1" or not own:
            raise
        shared = isinstance(error, (ConfigError, SharedDataError))
        if shared and os.environ.get("RANK", "0") != "0":
            # every rank has found the same problems, and the first one tells them;
            # torchrun ends the others then, but would also end the first if this one were faster
            time.sleep(PATIENCE)
        if not getattr(error, "told", False):
            left = getattr(error, "left", "")
            sys.stderr.write("\n".join(filter(None, [f"error: {error}", left])) + "\n")
        return _exit_code(error)
    except KeyboardInterrupt as stop:  # an `Interruption` has something to say
        preempted = isinstance(stop, Preempted) or getattr(stop, "preempted", False)
        what = "asked to stop" if preempted else "interrupted"
        sys.stderr.write("\n".join([what, *map(str, stop.args)]) + "\n")
        return EXIT_PREEMPTED if preempted else EXIT_INTERRUPTED


def _nobody_reads() -> bool:
    """Tells whether whoever read our output has gone (``| head``); nothing more is written then."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _exit_code(error: Exception) -> int:
    from lavis_msmedcap.common.failures import LostProcessError  # which imports torch

    if isinstance(error, LostProcessError):
        return EXIT_LOST_PROCESS
    return EXIT_STORAGE if disk_error_of(error) is not None else EXIT_WRONG_INPUT


def main(argv: Sequence[str] | None = None) -> int:
    """Trains as the arguments say.

    Args:
        argv: Arguments; those of the command line if None.

    Returns:
        Exit code, see `guarded`.
    """
    parser = argparse.ArgumentParser("lavis.train", description="Trains a model from a YAML file.")
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: run(args.cfg_path, args.options, ends=argv is None))


if __name__ == "__main__":
    sys.exit(main())
