"""From ``--cfg-path`` and ``--options`` to one checked configuration.

    file ──▶ body ──scales[scale]──▶ ──options──▶ picks packaged defaults ──▶ merged ──▶ resolved ──▶ checked

Precedence: packaged model and dataset defaults < the file's body < ``scales[scale]`` < options.
"""

from __future__ import annotations

import copy
import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from lavis_msmedcap.common.config_check import describe_unknown, nearest, show
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.paths import PACKAGE_ROOT
from lavis_msmedcap.run_options import parse_options

TOP_LEVEL = ("model", "datasets", "run", "scale", "scales")
OVERLAY_LEVEL = ("model", "datasets", "run")
PAPER_SCALE = "paper"

logger = logging.getLogger(__name__)


class RunConfig:
    """A resolved configuration with the interface of LAVIS' ``Config``.

    Args:
        config: All sections, interpolations resolved.
        source: The file it came from.
    """

    def __init__(self, config: DictConfig, source: Path) -> None:
        self.config = config
        self.source = source

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
        """Returns the line that says which scale runs."""
        if self.scale is None:
            return f"configuration: {self.source}"
        if self.scale == PAPER_SCALE:
            return "scale: paper — real data and published backbones; --options scale=demo is the demo"
        what = "phantoms and miniature backbones" if self.scale == "demo" else "as the file says"
        return f"scale: {self.scale} — {what}; --options scale=paper is the paper"

    def pretty_print(self) -> None:
        """Logs the sections as LAVIS does."""
        sections = {"Running Parameters": self.run_cfg}
        sections.update({f"Dataset {name}": value for name, value in self.datasets_cfg.items()})
        sections["Model Attributes"] = self.model_cfg
        for title, node in sections.items():
            plain = OmegaConf.to_container(node, resolve=True)
            logger.info("=====  %s  =====\n%s", title, json.dumps(plain, indent=4, sort_keys=True))


@dataclass
class Draft:
    """A configuration on its way, with the problems found so far.

    Attributes:
        config: Nested dictionaries; interpolations unresolved until the last step.
        user: What the file and the options say themselves, without packaged defaults.
        problems: One sentence each.
    """

    config: dict[str, Any]
    user: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def load_run_config(
    cfg_path: str, options: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> RunConfig:
    """Resolves and checks a run configuration, and registers it as LAVIS' ``configuration``.

    Args:
        cfg_path: YAML file; relative to the current directory, else the packaged copy of it.
        options: Words behind ``--options``.
        overrides: Nested settings of the entry point itself, which win over everything.

    Raises:
        ConfigError: Listing every problem found; nothing was built by then.
    """
    config, problems = resolve_run_config(cfg_path, options, overrides)
    if problems:
        raise ConfigError(problems, str(find_config(cfg_path)))
    from lavis.common.registry import registry

    registry.register("configuration", config)
    return config


def resolve_run_config(
    cfg_path: str, options: Sequence[str] = (), overrides: Mapping[str, Any] | None = None
) -> tuple[RunConfig, list[str]]:
    """Like `load_run_config`, but returns the problems instead of raising or registering.

    Raises:
        ConfigError: If the file is not there or is not YAML, so that there is nothing to resolve.
    """
    path = find_config(cfg_path)
    body = read_yaml(path)
    register_plugin()
    from lavis_msmedcap.run_checks import check_run_config, with_defaults

    option_tree, problems = parse_options(options)
    draft = Draft(_tidy(body, path, problems), problems=problems)
    _apply_scale(draft, merge(option_tree, overrides or {}))
    draft.user = resolve(draft.config, draft.problems)
    with_defaults(draft)
    found_before = len(draft.problems)
    draft.config = resolve(draft.config, draft.problems)
    # an unresolved reference of the file shows again behind the merge: tell it once
    draft.problems = list(dict.fromkeys(draft.problems[:found_before] + draft.problems[found_before:]))
    draft.config = check_run_config(draft)
    return RunConfig(OmegaConf.create(draft.config), path), list(dict.fromkeys(draft.problems))


def register_plugin() -> None:
    """Makes sure that LAVIS' registry holds LAVIS' classes and ours."""
    for module in ("lavis", "lavis.common.optims", "lavis.runners"):
        importlib.import_module(module)
    importlib.import_module("lavis_msmedcap._autoload").register()


# --- files -------------------------------------------------------------------------------------


def packaged_configs() -> dict[str, Path]:
    """Returns the run configurations that come with the package, by the path users write."""
    found = {}
    for root in (PACKAGE_ROOT.parent, PACKAGE_ROOT):
        for path in sorted((root / "projects" / "msmedcap").rglob("*.yaml")):
            found[path.relative_to(root).as_posix()] = path
    return found


def find_config(cfg_path: str) -> Path:
    """Finds a run configuration: relative to the current directory, else among the packaged ones.

    Raises:
        ConfigError: If there is none, with the nearest packaged name.
    """
    path = Path(cfg_path).expanduser()
    if path.is_file():
        return path
    packaged = packaged_configs()
    if path.as_posix() in packaged:
        return packaged[path.as_posix()]
    if path.is_dir():
        raise ConfigError([f"--cfg-path {cfg_path} is a folder; name a .yaml file in it"])
    near = nearest(path.as_posix(), packaged)
    hint = f"did you mean {near}?" if near else f"packaged: {', '.join(packaged) or 'none'}"
    raise ConfigError(
        [f"--cfg-path {cfg_path} does not exist in {Path.cwd()} nor in the package; {hint}"]
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file into nested dictionaries, interpolations left as they are.

    Raises:
        ConfigError: Naming the line that is not YAML.
    """
    try:
        config = OmegaConf.load(path)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        tab = " (indent with spaces, not tabs)" if "'\\t'" in str(error) else ""
        raise ConfigError([f"{where}not YAML: {error.problem}{tab}"], str(path)) from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        line = str(error).split("\n")[0]
        raise ConfigError([f"{key}: {line}; write ${{name}} with both braces"], str(path)) from error
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"cannot be read: {error}"], str(path)) from error
    if not isinstance(config, DictConfig) or not config:
        what = "is empty" if not config else "is not a mapping"
        raise ConfigError([f"{what}; expected the keys model, datasets and run"], str(path))
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=False)
    return plain


# --- merging -----------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy of ``base`` with ``over`` on top: mappings merge, all else is replaced."""
    merged = {key: copy.deepcopy(value) for key, value in base.items()}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def resolve(config: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Returns a copy with every ``${...}`` replaced; those that cannot be are reported, and null."""
    return {str(k): v for k, v in _resolve(OmegaConf.create(dict(config)), "", problems).items()}


def _resolve(node: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(node, (DictConfig, ListConfig)):
        return node
    is_map = isinstance(node, DictConfig)
    result: dict[Any, Any] = {}
    for key in list(node.keys()) if is_map else range(len(node)):
        here = f"{path}.{key}" if path and is_map else f"{path}[{key}]" if not is_map else str(key)
        try:
            result[key] = _resolve(node[key], here, problems)
        except OmegaConfBaseException as error:
            problems.append(f"{here}: {str(error).splitlines()[0]}{_interpolation_cure(error)}")
            result[key] = None
    return result if is_map else list(result.values())


def _interpolation_cure(error: OmegaConfBaseException) -> str:
    if "Missing mandatory value" in str(error):
        return "; replace ??? by a value"
    return "; ${...} must name a key of this configuration, for example ${scale} or ${run.seed}"


def _tidy(body: dict[str, Any], path: Path, problems: list[str]) -> dict[str, Any]:
    """Reports what stands at the top level of a file by mistake, and leaves it out."""
    for key in [key for key in body if key not in TOP_LEVEL]:
        del body[key]
        if key == "preprocess":
            problems.append(
                "preprocess: a run takes its processors from the datasets; move it to "
                "datasets.<name>.vis_processor and text_processor"
            )
        else:
            problems.append(describe_unknown("the top-level key", str(key), TOP_LEVEL))
    for key in ("model", "datasets", "run"):
        if key not in body:
            problems.append(f"{key}: is missing; the file needs model, datasets and run")
        elif not isinstance(body[key], Mapping):
            problems.append(f"{key} is {show(body[key])}; expected a mapping")
        if not isinstance(body.get(key), Mapping):
            body[key] = {}
    for name, value in list(body["datasets"].items()):
        if value is None:
            problems.append(
                f"datasets.{name} is empty; write 'datasets.{name}: {{}}' for its packaged "
                "defaults, or take the line out"
            )
            body["datasets"][name] = {}
    return body


def _apply_scale(draft: Draft, options: dict[str, Any]) -> None:
    """Puts the overlay of the chosen scale and the options over the body."""
    body = draft.config
    overlays = body.pop("scales", None)
    options = dict(options)
    if "scales" in options:
        del options["scales"]
        draft.problems.append(
            "--options scales.…: options win over every scale; set the key itself, "
            "for example run.max_epoch=1"
        )
    for key in [key for key in options if key not in TOP_LEVEL]:
        del options[key]
        draft.problems.append(f"--options {describe_unknown('key', key, TOP_LEVEL[:-1])}")
    overlay = _overlay(draft, overlays, options)
    draft.config = merge(merge(body, overlay), options)
    # null drops a dataset, as it drops a branch; in the file itself it is more likely a mistake
    datasets = draft.config["datasets"]
    if isinstance(datasets, Mapping):
        draft.config["datasets"] = {k: v for k, v in datasets.items() if v is not None}


def _overlay(draft: Draft, overlays: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    body, problems = draft.config, draft.problems
    if "scale" not in body:
        if "scale" in options:
            problems.append(
                "--options scale: this configuration has no scale to switch (its file has no "
                "'scale:' key)"
            )
        if overlays is not None:
            problems.append("scales: has no effect without 'scale:'; add for example 'scale: demo'")
        return {}
    scale = options.get("scale", body["scale"])
    if not isinstance(scale, str):
        problems.append(f"scale is {show(scale)}; expected a name such as demo or paper")
        return {}
    if overlays is None:
        return {}
    if not isinstance(overlays, Mapping):
        problems.append(f"scales is {show(overlays)}; expected a mapping from scale to settings")
        return {}
    if scale not in overlays:
        problems.append(describe_unknown("scale", scale, overlays))
    chosen = overlays.get(scale) or {}
    for name, overlay in overlays.items():
        problems += _overlay_problems(str(name), overlay)
    return {k: v for k, v in chosen.items() if k in OVERLAY_LEVEL} if _is_map(chosen) else {}


def _overlay_problems(name: str, overlay: Any) -> list[str]:
    if overlay is None:
        return []
    if not _is_map(overlay):
        return [f"scales.{name} is {show(overlay)}; expected a mapping with model, datasets or run"]
    return [
        describe_unknown(f"scales.{name}: key", str(key), OVERLAY_LEVEL)
        for key in overlay
        if key not in OVERLAY_LEVEL
    ]


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)
