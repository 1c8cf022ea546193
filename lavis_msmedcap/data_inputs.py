"""The records that ``msmedcap data`` works on: those of a run configuration, or of one folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.datasets.records import MedCapRecord

logger = logging.getLogger(__name__)


def records_of(
    place: str, dataset: str | None = None, options: Sequence[str] = ()
) -> list[MedCapRecord]:
    """Reads the records of all data sets of a configuration, or of a folder.

    Filters, caps, splits and defaults are those of training: the same builders run.

    Args:
        place: A run configuration (.yaml), or the folder of one data set.
        dataset: Registered name of the data set in the folder; by default whichever fits.
        options: Words behind ``--options``.

    Raises:
        ConfigError: If the configuration or an option is wrong.
        DataError: If files are missing, or no or several kinds of data set fit the folder.
    """
    from lavis_msmedcap.run_config import register_plugin

    register_plugin()
    if Path(place).suffix in (".yaml", ".yml"):
        sections = _of_config(place, options)
    else:
        sections = _of_folder(Path(place), dataset, options)
    return [record for name, section in sections.items() for record in _built(name, section)]


def _built(name: str, section: Mapping[str, Any]) -> Iterator[MedCapRecord]:
    from lavis.common.registry import registry
    from omegaconf import OmegaConf

    builder = registry.get_builder_class(name)
    if builder is None or not hasattr(builder, "missing_inputs"):
        raise ConfigError(
            [
                f"datasets.{name} is a data set of LAVIS itself, whose images and captions are "
                f"only known to its own code; leave it out with --options datasets.{name}=null"
            ]
        )
    for data in builder(OmegaConf.create(dict(section))).build_datasets().values():
        yield from data.records


def _of_config(place: str, options: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Returns the datasets of a configuration; of several stages, each one once."""
    from lavis_msmedcap.run_config import resolve_stages

    sections: dict[str, Mapping[str, Any]] = {}
    problems: list[str] = []
    for config, found in resolve_stages(place, options):
        # weights and an earlier run's checkpoints need not be there to read data
        problems += [p for p in found if not p.startswith(("model.", "run.", "stages."))]
        for name, section in config.to_dict()["datasets"].items():
            if sections.setdefault(name, section) != section:
                raise ConfigError(
                    [
                        f"datasets.{name} differs between the stages of {place}; leave all but one "
                        "out, for example with --options stages.pretrain=null"
                    ]
                )
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), place)
    return sections


def _of_folder(
    folder: Path, dataset: str | None, options: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Returns the section of the data set in a folder: packaged defaults, nothing capped."""
    from lavis_msmedcap.run_options import parse_options
    from lavis_msmedcap.run_sources import merge

    if not folder.exists():
        raise DataError(f"{folder} does not exist; expected a run configuration or a folder")
    tree, problems = parse_options(options)
    wrong = [key for key in tree if key != "datasets"]
    problems += [f"--options {key}: only datasets.<name>.… counts for a folder" for key in wrong]
    if problems:
        raise ConfigError(problems)
    fitting: dict[str, Mapping[str, Any]] = {}
    reasons: list[str] = []
    for name, cls in _folder_builders(dataset).items():
        section = _default_section(cls)
        section["max_samples"] = None
        section["build_info"] = {"root": str(folder)}
        section = merge(section, (tree.get("datasets") or {}).get(name) or {})
        missing = cls.missing_inputs(section)
        if missing:
            reasons += missing
        else:
            fitting[name] = section
    if len(fitting) != 1:
        told = "several fit" if fitting else "none fits"
        cure = "say which it is with --dataset NAME, or write a configuration"
        names = ", ".join(fitting) if fitting else "".join(f"\n  {line}" for line in reasons)
        raise DataError(f"which data set is in {folder}? {told}: {names}\n{cure}")
    logger.info("%s is read as %s", folder, next(iter(fitting)))
    return fitting


def _folder_builders(dataset: str | None) -> dict[str, Any]:
    """Returns the builders of this package that read one folder, by name."""
    from lavis.common.registry import registry

    own = __name__.partition(".")[0]
    found = {}
    for name, cls in registry.mapping["builder_name_mapping"].items():
        section = getattr(cls, "CONFIG_KEYS", {}).get("build_info")
        if cls.__module__.partition(".")[0] == own and "root" in getattr(section, "keys", {}):
            found[name] = cls
    if dataset is None:
        return found
    if dataset not in found:
        raise ConfigError([f"--dataset {dataset}: known are {', '.join(sorted(found))}"])
    return {dataset: found[dataset]}


def _default_section(cls: Any) -> dict[str, Any]:
    from lavis_msmedcap.run_sources import read_yaml

    path = Path(cls.DATASET_CONFIG_DICT["default"])
    sections = read_yaml(path)["datasets"]
    return dict(sections[cls.NAME])
