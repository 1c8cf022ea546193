"""MLflow, for ``run.trackers: [mlflow]``; files unless ``MLFLOW_TRACKING_URI`` says otherwise.

The files lie in ``<run directory>/mlflow``. User, host, source and git are not recorded: the run is
made through the client, which adds nothing by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

EXPERIMENT = "msmedcap"
RUN_TAG = "msmedcap.run"
LONGEST_PARAM = 500  # of older servers
PARAMS_AT_ONCE = 100  # the most that a server takes
# both are read when MLflow is imported: it counts its uses over the network, and newer versions
# want a database
DEFAULTS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}


def open_tracker(root: Path, config: Mapping[str, Any]) -> MlflowTracker:
    """Makes an MLflow run of the name of the run directory, or goes on with it.

    Args:
        root: The run directory.
        config: What may be shown of the configuration.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.entities import Param

    uri = os.environ.get("MLFLOW_TRACKING_URI") or (root.resolve() / "mlflow").as_uri()
    client = MlflowClient(tracking_uri=uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    experiment = client.get_experiment_by_name(name)
    number = client.create_experiment(name) if experiment is None else experiment.experiment_id
    found = client.search_runs([number], f"tags.`{RUN_TAG}` = '{root.name}'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, status="RUNNING")
        return MlflowTracker(client, found[0].info.run_id)
    run = client.create_run(number, tags={RUN_TAG: root.name}, run_name=root.name)
    params = [Param(key, value[:LONGEST_PARAM]) for key, value in _flat("", config)]
    for start in range(0, len(params), PARAMS_AT_ONCE):
        client.log_batch(run.info.run_id, params=params[start : start + PARAMS_AT_ONCE])
    return MlflowTracker(client, run.info.run_id)


class MlflowTracker:
    """Writes numbers to an MLflow run.

    Args:
        client: The client of its store.
        run_id: The run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self._run_id = run_id

    def write(self, group: str, step: int, numbers: Mapping[str, object]) -> None:
        """Writes a row."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(f"{group}/{name}", v, now, step) for name, v in numbers.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, complete: bool = True) -> None:
        """Ends the run."""
        self._client.set_terminated(self._run_id, "FINISHED" if complete else "KILLED")


def _flat(head: str, node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(f"{head}.{key}" if head else str(key), value)
    else:
        yield head, str(node)
