"""A run that goes on under another configuration than it was started with, as its user asks.

Some settings decide on what a step or a batch is: with others, half an epoch cannot go on. Some
decide on what a validation measures: with others, what was measured before says nothing about which
epoch is best. All others may change, and the run remembers both configurations.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.whole_files import whole_path
from lavis_msmedcap.runners.run_directory import RunDirectory
from lavis_msmedcap.runners.run_status import RunStatus
from lavis_msmedcap.runners.settings import RunSettings
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
# of the run section, what a validation measures; also all of model and datasets
MEASURES = frozenset(
    {
        "run.amp",
        "run.best_metric",
        "run.ema_decay",
        "run.length_penalty",
        "run.max_eval_samples",
        "run.max_len",
        "run.min_len",
        "run.num_beams",
        "run.repetition_penalty",
        "run.task",
        "run.valid_splits",
    }
)

logger = logging.getLogger(__name__)


def describe_steps(settings: RunSettings) -> str:
    """Says what the settings of `FIXED` are; a state remembers it."""
    values = {key: getattr(settings, key.removeprefix("run.")) for key in sorted(FIXED)}
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, {}))


def check_changes(root: Path, changed: Sequence[str]) -> None:
    """Checks that a run can go on under changed settings.

    Args:
        root: The run directory.
        changed: Lines of `run_status.differences` and of `JointBatches.differences`.

    Raises:
        ConfigError: If batches or a setting of `FIXED` have changed. A state says the same when it
            is loaded, should the files of the run say nothing.
    """
    fixed = [line for line in changed if _key(line) in FIXED or line.startswith("images of all")]
    if fixed:
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
    measured = any(map(_measures, changed))
    checkpoints = [directory.checkpoint_best, *directory.checkpoints_of_epochs()]
    if measured:
        logger.warning(
            "validations so far may have measured something else: the best epoch is chosen among "
            "those that follow"
        )
        status.validations = [(epoch, None) for epoch, _ in status.validations]
        for path in checkpoints:
            _keep(path, newest)
    status.fingerprint, status.batches = current.fingerprint, current.batches
    status.origin = current.origin
    status.write(directory.root)
    for path in checkpoints if measured else ():
        path.unlink(missing_ok=True)  # not before: under the old status they are the best


def _key(line: str) -> str:
    return line.split(":", 1)[0]


def _measures(line: str) -> bool:
    """Tells whether a change may change what validations measure; of what is unknown, it does."""
    key = _key(line)
    return key in MEASURES or not key.startswith("run.")


def _keep(path: Path, newest: str) -> None:
    """Keeps a copy of a file under a name that says until which state it was true."""
    if not path.is_file():
        return
    place = path.with_name(f"{path.stem}-until-{newest}{path.suffix}")
    number = 2
    while place.exists():
        place = path.with_name(f"{path.stem}-until-{newest}-{number}{path.suffix}")
        number += 1
    with whole_path(place) as part:
        shutil.copyfile(path, part)
