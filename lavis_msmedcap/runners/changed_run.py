"""A run that goes on under another configuration than it was started with, as its user asks.

Some settings decide on what a step or a batch is: with others, half an epoch cannot go on. Some
decide on what a validation measures: with others, what was measured before says nothing about which
epoch is best. All others may change, and the run remembers both configurations.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_status import RunStatus
from lavis_msmedcap.runners.training_state import StateStore

# what a step, a batch or an epoch is
FIXED = frozenset(
    {
        "run.accum_grad_iters",
        "run.iters_per_inner_epoch",
        "run.samples_per_epoch",
        "run.seed",
        "run.train_dataset_ratios",
    }
)
# how weights are trained; a validation measures them as before
TRAINING_ONLY = frozenset(
    {
        "run.beta2",
        "run.clip_grad_norm",
        "run.deterministic",
        "run.compile",
        "run.early_stopping",
        "run.init_lr",
        "run.lr_decay_rate",
        "run.lr_sched",
        "run.max_epoch",
        "run.max_iters",
        "run.min_lr",
        "run.warmup_lr",
        "run.warmup_steps",
        "run.weight_decay",
    }
)

logger = logging.getLogger(__name__)


def check_changes(root: Path, changed: Sequence[str], same_batches: bool) -> None:
    """Checks that a run can go on under changed settings.

    Args:
        root: The run directory.
        changed: Lines of `run_status.differences`.
        same_batches: Whether the joint batches are the same.

    Raises:
        ConfigError: If they are not, or a setting of `FIXED` has changed.
    """
    fixed = [line for line in changed if _key(line) in FIXED or line.startswith("images of all")]
    if fixed or not same_batches:
        raise ConfigError(
            [
                f"run.resume: the run in {root} cannot go on with other steps or batches "
                f"({'; '.join(fixed)}); take it up with those that it was started with, or start "
                "anew with run.resume=off"
            ]
        )


def accept_changes(
    directory: RunDirectory, status: RunStatus, changed: Sequence[str], current: RunStatus
) -> None:
    """Makes the changed configuration that of a run; what it had before is kept beside it.

    It is called when the state has been loaded: what does not fit the run must not change it.

    Args:
        directory: The run directory.
        status: Of the run; it gets the marks of ``current`` and is written.
        changed: Lines of `run_status.differences`.
        current: Fingerprint and batches of today's configuration.
    """
    logger.warning(
        "the run in %s goes on with other settings: %s; its result will not be that of one run of "
        "either configuration",
        directory.root,
        "; ".join(changed),
    )
    newest = StateStore(directory.states).paths()[0].stem
    _keep(directory.config, newest)
    if not all(_key(line) in TRAINING_ONLY for line in changed):
        logger.warning(
            "validations so far may have measured something else: the best epoch is chosen among "
            "those that follow"
        )
        status.validations = [(epoch, None) for epoch, _ in status.validations]
        for path in (directory.checkpoint_best, *directory.checkpoints_of_epochs()):
            _keep(path, newest)
    status.fingerprint, status.batches = current.fingerprint, current.batches
    status.write(directory.root)


def _key(line: str) -> str:
    return line.split(":", 1)[0]


def _keep(path: Path, newest: str) -> None:
    """Gives a file a name that says until which state it was true."""
    if not path.is_file():
        return
    place = path.with_name(f"{path.stem}-until-{newest}{path.suffix}")
    number = 2
    while place.exists():
        place = path.with_name(f"{path.stem}-until-{newest}-{number}{path.suffix}")
        number += 1
    path.replace(place)
