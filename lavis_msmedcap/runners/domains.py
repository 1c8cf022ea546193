"""Which domain each dataset belongs to, and whether the model has a use for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.datasets.records import DOMAINS


def dataset_domains(
    datasets: Mapping[str, Mapping[str, Any]], sections: Mapping[str, Any]
) -> dict[str, str]:
    """Finds the domain of every dataset: its own ``domain``, else the configuration's.

    Args:
        datasets: Dataset name to split name to dataset.
        sections: The ``datasets:`` section of the configuration.

    Raises:
        ConfigError: If a dataset has none, or an unknown one.
    """
    domains: dict[str, str] = {}
    problems = []
    for name, splits in datasets.items():
        own = [getattr(data, "domain", None) for data in splits.values() if data is not None]
        section = sections.get(name) or {}
        found = next((domain for domain in own if domain), None) or section.get("domain")
        if found not in DOMAINS:
            problems.append(
                f"datasets.{name}.domain is {found!r}; expected one of {', '.join(DOMAINS)}"
            )
        domains[name] = str(found)
    if problems:
        raise ConfigError(problems)
    return domains


def check_domains(domains: Mapping[str, str], train_domains: set[str] | None) -> None:
    """Checks that the model trains on the domain of every dataset.

    Args:
        domains: Domain by dataset name.
        train_domains: Domains that some branch trains on; None if the model takes all.

    Raises:
        ConfigError: Naming the datasets that no branch would train on.
    """
    if train_domains is None:
        return
    useless = [(name, domain) for name, domain in domains.items() if domain not in train_domains]
    if useless:
        trained = ", ".join(sorted(train_domains)) or "nothing"
        raise ConfigError(
            [
                f"datasets.{name} is of domain {domain}, but the branches train on {trained}; take "
                f"the dataset out (--options datasets.{name}=null) or add {domain} to "
                "model.branches.<name>.train_on"
                for name, domain in useless
            ]
        )
