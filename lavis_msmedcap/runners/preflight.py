"""What a runner needs of the data, looked at before the model is built, which may take minutes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lavis_msmedcap.runners.domains import dataset_domains
from lavis_msmedcap.runners.loaders import check_splits, train_loader
from lavis_msmedcap.runners.settings import RunSettings


def check_training_data(cfg: Any, datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """Checks that an epoch of the datasets has batches, as `RunnerMSMedCap` does later.

    Args:
        cfg: LAVIS' ``Config`` or anything with ``run_cfg`` and ``datasets_cfg``.
        datasets: Dataset name to split name to dataset.

    Raises:
        ConfigError: If a split or a domain is missing.
        DataError: If there is too little data for a batch, or an epoch is too short for one.
    """
    settings = RunSettings.from_run_cfg(cfg.run_cfg)
    if settings.evaluate:
        return
    check_splits(datasets, settings)
    domains = dataset_domains(datasets, cfg.datasets_cfg)
    train_loader(datasets, domains, settings, torch.device("cpu"))
