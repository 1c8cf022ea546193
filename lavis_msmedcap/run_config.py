"""From ``--cfg-path`` and ``--options`` to checked configurations, one for each stage of the file.

    file ─▶ body ─scales[scale]─▶ ─options─▶ picks packaged defaults ─▶ merged ─▶ resolved ─▶ check

Precedence: packaged model and dataset defaults < the file's body < ``scales[scale]`` < options;
but a branch that the body sets to null stays out, whatever the scale says of it. A file
without ``stages:`` is one stage (see `run_stages`).
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lavis_msmedcap.common.config_check import describe_unknown, show
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.run_options import idle_options, parse_options
from lavis_msmedcap.run_sources import (
    Draft,
    find_config,
    merge,
    read_config,
    without_dropped_branches,
)
from lavis_msmedcap.run_stages import Stage, evaluating, made_by_earlier, split_stages

SECTIONS = ("model", "datasets", "run")
TOP_LEVEL = (*SECTIONS, "scale", "scales", "name")
SCALES = {
    "demo": "phantoms and miniature backbones; --options scale=paper is the paper",
    "paper": "real data and published backbones; --options scale=demo is the demo",
    "authors": "the authors' code, where it differs from the paper; scale=paper is the paper",
}

logger = logging.getLogger(__name__)


class RunConfig:
    """A resolved configuration with the interface of LAVIS' ``Config``.

    Args:
        config: All sections, interpolations resolved.
        source: The file it came from.
        notes: What is left out, and why, one sentence each.
        stage: Which of the file's ``stages`` it is; "" in a file without.
    """

    def __init__(
        self, config: DictConfig, source: Path, notes: Sequence[str] = (), stage: str = ""
    ) -> None:
        self.config = config
        self.source = source
        self.notes = tuple(notes)
        self.stage = stage

    @property
    def prefix(self) -> str:
        """What stands in front of the problems of this stage; "" in a file without stages."""
        return f"stages.{self.stage}: " if self.stage else ""

    @property
    def run_cfg(self) -> DictConfig:
        """The ``run:`` section."""
        return self.config.run

    @property
    def datasets_cfg(self) -> DictConfig:
        """The ``datasets:`` section."""
        return self.config.datasets

    @property
    def model_cfg(self) -> DictConfig:
        """The ``model:`` section."""
        return self.config.model

    @property
    def scale(self) -> str | None:
        """``demo``, ``paper`` or another scale of the file; None where the file has none."""
        scale: str | None = self.config.get("scale")
        return scale

    def get_config(self) -> DictConfig:
        """Returns all sections."""
        return self.config

    def to_dict(self) -> dict[str, Any]:
        """Returns all sections as plain dictionaries and lists."""
        plain: dict[str, Any] = OmegaConf.to_container(self.config, resolve=True)
        return plain

    def to_yaml(self) -> str:
        """Returns all sections as YAML."""
        text: str = OmegaConf.to_yaml(self.config)
        return text

    def banner(self) -> str:
        """Returns the line that says which stage runs at which scale."""
        stage = f"stage: {self.stage} of {self.source}; " if self.stage else ""
        if self.scale is None:
            return stage or f"configuration: {self.source}"
        return f"{stage}scale: {self.scale} — {SCALES.get(self.scale, f'as {self.source} says')}"

    def pretty_print(self) -> None:
        """Logs the sections as LAVIS does."""
        sections = {"Running Parameters": self.run_cfg}
        sections.update({f"Dataset {name}": value for name, value in self.datasets_cfg.items()})
        sections["Model Attributes"] = self.model_cfg
        for title, node in sections.items():
            plain = OmegaConf.to_container(node, resolve=True)
            logger.info("=====  %s  =====\n%s", title, json.dumps(plain, indent=4, sort_keys=True))


def load_run_config(
    cfg_path: str, options: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> RunConfig:
    """Resolves and checks a configuration of one stage, and makes it LAVIS' ``configuration``.

    Args:
        cfg_path: YAML file; relative to the current directory, else the packaged copy of it.
        options: Words behind ``--options``.
        overrides: Nested settings of the entry point itself, which win over everything.

    Raises:
        ConfigError: Listing every problem found; nothing was built by then.
    """
    config, problems = resolve_run_config(cfg_path, options, overrides)
    if problems:
        raise ConfigError(problems, str(config.source))
    make_current(config)
    return config


def load_stages(
    cfg_path: str, options: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> list[RunConfig]:
    """Like `load_run_config` for a file of any number of stages, none of them current yet."""
    stages = resolve_stages(cfg_path, options, overrides)
    problems = _distinct([problem for _, found in stages for problem in found])
    if problems:
        raise ConfigError(problems, str(stages[0][0].source))
    return [config for config, _ in stages]


def make_current(config: RunConfig) -> None:
    """Registers a configuration as the one that LAVIS' own code looks up."""
    from lavis.common.registry import registry

    registry.register("configuration", config)


def resolve_run_config(
    cfg_path: str, options: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> tuple[RunConfig, list[str]]:
    """Like `load_run_config`, but returns the problems instead of raising, and registers nothing.

    Raises:
        ConfigError: If the file is not there or is not YAML, so that there is nothing to resolve,
            or if it has several stages.
    """
    stages = resolve_stages(cfg_path, options, overrides)
    if len(stages) > 1:
        names = ", ".join(config.stage for config, _ in stages)
        raise ConfigError(
            [
                f"stages: here only one can be taken, and there are {names}; leave the others out "
                "with --options stages.<name>=null"
            ],
            cfg_path,
        )
    return stages[0]


def resolve_stages(
    cfg_path: str, options: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> list[tuple[RunConfig, list[str]]]:
    """Resolves every stage of a file, in order, each with the problems found in it.

    Of a file of stages, each problem begins with `RunConfig.prefix`. A checkpoint that an earlier
    stage of the same file will write is no problem.

    Raises:
        ConfigError: If the file is not there or is not YAML, so that there is nothing to resolve,
            or if no stage of it is left to run.
    """
    path = find_config(cfg_path)
    body = read_config(path)
    register_plugin()
    option_tree, problems = parse_options(options)
    stages = split_stages(body, path, option_tree)
    if (overrides or {}).get("run", {}).get("evaluate"):
        stages = evaluating(stages, path)
    resolved: list[tuple[RunConfig, list[str]]] = []
    for stage in stages:
        config, found = _resolve(stage, path, problems, overrides or {})
        earlier = [before.run_cfg.get("output_dir") for before, _ in resolved]
        found = made_by_earlier(found, config.to_dict()["model"], earlier)
        resolved.append((config, [f"{config.prefix}{problem}" for problem in found]))
    return resolved


def _resolve(
    stage: Stage, path: Path, problems: Sequence[str], overrides: Mapping[str, Any]
) -> tuple[RunConfig, list[str]]:
    # these need LAVIS' registry, which takes seconds to import: a wrong path is told before
    from lavis_msmedcap.run_checks import check_run_config, with_defaults

    draft = Draft(stage.body, problems=list(problems))
    _tidy(draft)
    _apply_scale(draft, merge(stage.options, overrides))
    draft.user = draft.resolved()
    with_defaults(draft)
    draft.config = draft.resolved()
    draft.problems += idle_options(stage.options, draft.config)
    draft.config = check_run_config(draft)
    config = RunConfig(OmegaConf.create(draft.config), path, draft.notes, stage.name)
    return config, _distinct(draft.problems)


def register_plugin() -> None:
    """Makes sure that LAVIS' registry holds LAVIS' classes and those of this package."""
    for module in ("lavis", "lavis.common.optims", "lavis.runners"):
        importlib.import_module(module)
    importlib.import_module("lavis_msmedcap._register").register()


def _distinct(problems: list[str]) -> list[str]:
    """Leaves out repetitions, and problems that another one tells with more words."""
    unique = list(dict.fromkeys(problems))
    return [
        problem
        for problem in unique
        if not any(other != problem and other.startswith(problem) for other in unique)
    ]


def _tidy(draft: Draft) -> None:
    """Reports what stands at the top level of a file by mistake, and leaves it out."""
    body, problems = draft.config, draft.problems
    draft.config = {key: body[key] for key in TOP_LEVEL if key in body}
    for key in body:
        if key == "preprocess":
            problems.append(
                "preprocess: a run takes its processors from the datasets; move it to "
                "datasets.<name>.vis_processor and text_processor"
            )
        elif key not in TOP_LEVEL:
            problems.append(describe_unknown("top-level key", str(key), TOP_LEVEL))
    for key in SECTIONS:
        if key not in draft.config:
            problems.append(f"{key}: is missing; a run needs {', '.join(SECTIONS)}")
            draft.config[key] = {}
            draft.incomplete.add(key)
        _require_mapping(draft, key, key)
    # behind --options null drops a dataset; in a file it is more likely meant as "defaults"
    datasets = draft.config["datasets"]
    for name in [name for name, value in datasets.items() if value is None]:
        problems.append(
            f"datasets.{name} is empty; write '{name}: {{}}' for its packaged defaults, or take "
            "the line out"
        )
        del datasets[name]
        draft.incomplete.add(f"datasets.{name}")


def _require_mapping(draft: Draft, key: str, shown: str) -> None:
    value = draft.config[key]
    if not isinstance(value, Mapping):
        draft.problems.append(f"{shown} is {show(value)}; expected a mapping")
        draft.config[key] = {}
        draft.incomplete.add(key)


def _apply_scale(draft: Draft, options: dict[str, Any]) -> None:
    """Puts the overlay of the chosen scale and then the options over the body."""
    body = {key: value for key, value in draft.config.items() if key != "scales"}
    overlay, lost = without_dropped_branches(_overlay(draft, options), body, options)
    draft.notes += [
        f"scales: the settings of model.branches.{name} are left out: the file sets it to null"
        for name in lost
    ]
    if "scales" in options:
        draft.problems.append(
            "--options scales: options win over every scale, so set the key itself, for example "
            "run.max_epoch=1"
        )
    for key in options:
        if key not in TOP_LEVEL:
            known_keys = [name for name in TOP_LEVEL if name != "scales"]
            draft.problems.append(f"--options {describe_unknown('key', key, known_keys)}")
    known = {k: value for k, value in options.items() if k in (*SECTIONS, "scale", "name")}
    draft.config = merge(merge(body, overlay), known)
    for key in SECTIONS:
        _require_mapping(draft, key, f"--options: {key}")
    datasets = draft.config["datasets"]
    draft.config["datasets"] = {k: value for k, value in datasets.items() if value is not None}


def _overlay(draft: Draft, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of the chosen scale."""
    overlays = draft.config.get("scales")
    if "scale" not in draft.config:
        if "scale" in options:
            draft.problems.append("--options scale: the file has no 'scale:' key to switch")
        if overlays is not None:
            draft.problems.append("scales: has no effect without 'scale:'; add 'scale: demo'")
        return {}
    scale = options.get("scale", draft.config["scale"])
    if overlays is None:
        if not isinstance(scale, str):
            draft.problems.append(f"scale is {show(scale)}; expected a name such as demo or paper")
        return {}
    if not isinstance(overlays, Mapping) or not overlays:
        draft.problems.append(f"scales is {show(overlays)}; expected settings by scale")
        draft.incomplete.add("run")  # its numbers stand in the scales
        return {}
    if not isinstance(scale, str) or scale not in overlays:
        draft.problems.append(describe_unknown("scale", str(scale), overlays))
        # go on with one that is known, to find the other problems
        scale = options["scale"] = next(iter(overlays))
    for name, overlay in overlays.items():
        draft.problems += _overlay_problems(f"scales.{name}", overlay)
    chosen = overlays.get(scale)
    if not isinstance(chosen, Mapping):
        return {}
    return {key: chosen[key] for key in SECTIONS if isinstance(chosen.get(key), Mapping)}


def _overlay_problems(path: str, overlay: Any) -> list[str]:
    if overlay is None:
        return []
    if not isinstance(overlay, Mapping):
        return [f"{path} is {show(overlay)}; expected a mapping with model, datasets or run"]
    problems = []
    for key, value in overlay.items():
        if key not in SECTIONS:
            problems.append(describe_unknown(f"{path}: key", str(key), SECTIONS))
        elif not isinstance(value, Mapping):
            problems.append(f"{path}.{key} is {show(value)}; expected a mapping")
    return problems
