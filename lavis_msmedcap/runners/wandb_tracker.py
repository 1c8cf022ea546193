"""Weights & Biases, for ``run.trackers: [wandb]``; offline unless ``WANDB_MODE`` says otherwise.

An offline run lies in ``<run directory>/wandb`` and is sent by ``wandb sync`` when somebody wants
that. Host, user, command line, code, git and machine are not recorded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OFFLINE = "offline"
PROJECT = "msmedcap"
STEP = "step"


def open_tracker(root: Path, config: Mapping[str, Any]) -> WandbTracker:
    """Starts a W&B run of the name of the run directory, or goes on with it.

    Args:
        root: The run directory.
        config: What may be shown of the configuration.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when wandb is imported
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    mode = os.environ.get("WANDB_MODE", OFFLINE)
    run = wandb.init(
        mode=mode,
        dir=str(root),
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=root.name,
        name=root.name,
        resume=None if mode == OFFLINE else "allow",  # there is nobody to ask for the older part
        config=dict(config),
        settings=settings,
    )
    # its own step must not go back, which ours does when a run is taken up
    run.define_metric("*", step_metric=STEP)
    return WandbTracker(run)


class WandbTracker:
    """Writes numbers to a W&B run.

    Args:
        run: What ``wandb.init`` returns.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, group: str, step: int, numbers: Mapping[str, object]) -> None:
        """Writes a row."""
        self._run.log({STEP: step, **{f"{group}/{name}": v for name, v in numbers.items()}})

    def close(self, complete: bool = True) -> None:
        """Ends the run."""
        self._run.finish(exit_code=0 if complete else 1)
