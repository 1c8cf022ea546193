"""The files that a run configuration is made of, and how they are put over each other."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from lavis_msmedcap.common.config_check import nearest
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.paths import PACKAGE_ROOT


@dataclass
class Draft:
    """A configuration on its way, with the problems found so far.

    Attributes:
        config: Nested dictionaries; interpolations unresolved until the last step.
        user: What the file and the options say themselves, without packaged defaults, resolved.
        problems: One sentence each.
        notes: One sentence for each thing that is left out, and why.
        incomplete: Sections (``model``, ``datasets.roco``, ``run``) whose defaults or settings are
            lost to a problem already told, so that holes in them are no news.
        unresolved: Keys whose ``${...}`` is already told to be wrong; they are null.
    """

    config: dict[str, Any]
    user: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    incomplete: set[str] = field(default_factory=set)
    unresolved: set[str] = field(default_factory=set)

    def resolved(self) -> dict[str, Any]:
        """Returns a copy of ``config`` with every ``${...}`` replaced; failures become problems."""
        failures: dict[str, str] = {}
        resolved: dict[str, Any] = _resolve(OmegaConf.create(dict(self.config)), "", failures)
        self.unresolved |= set(failures)
        self.problems += [f"{path}: {reason}" for path, reason in failures.items()]
        return resolved


def packaged_configs() -> dict[str, Path]:
    """Returns the run configurations that come with the package, by the path that users write.

    A wheel has them inside the package, a checkout and an editable install beside it.
    """
    found = {}
    for root in (PACKAGE_ROOT.parent, PACKAGE_ROOT):
        for path in sorted((root / "projects" / "msmedcap").rglob("*.yaml")):
            if not path.name.startswith("_"):  # those are bases of others
                found[path.relative_to(root).as_posix()] = path
    return found


def find_config(cfg_path: str) -> Path:
    """Finds a run configuration: relative to the current directory, else among the packaged ones.

    ``lavis/projects/...`` is also found where LAVIS is installed.

    Raises:
        ConfigError: If there is none, with the nearest packaged name.
    """
    path = Path(cfg_path).expanduser()
    if path.is_file():
        return path
    packaged = packaged_configs()
    if path.as_posix() in packaged:
        return packaged[path.as_posix()]
    host = importlib.util.find_spec("lavis")
    if path.parts[:1] == ("lavis",) and host is not None and host.origin is not None:
        shipped = Path(host.origin).parent.parent / path
        if shipped.is_file():
            return shipped
    if path.is_dir():
        raise ConfigError([f"--cfg-path {cfg_path} is a folder; name a .yaml file in it"])
    near = nearest(path.as_posix(), packaged)
    hint = f"did you mean {near}?" if near else f"packaged: {', '.join(packaged) or 'none'}"
    raise ConfigError(
        [f"--cfg-path {cfg_path} is neither in {Path.cwd()} nor in the package; {hint}"]
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
        tab = " (indent with spaces, not tabs)" if _has_tab(path, mark) else ""
        raise ConfigError([f"{where}not YAML: {error.problem}{tab}"], str(path)) from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        reason = str(error).splitlines()[0]
        raise ConfigError([f"{key}: {reason}; write ${{name}}, both braces"], str(path)) from error
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"cannot be read: {error}"], str(path)) from error
    if not isinstance(config, DictConfig) or not config:
        what = "is empty" if not config else "is not a mapping"
        raise ConfigError([f"{what}; expected the keys model, datasets and run"], str(path))
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=False)
    return plain


def read_config(path: Path) -> dict[str, Any]:
    """Reads a run configuration, with the file that its key ``base`` names under it.

    ``base`` is relative to the file that names it, and may stand in every stage of ``stages:`` too.

    Raises:
        ConfigError: If a file is missing, not YAML, or its own base in the end.
    """
    return _with_base(read_yaml(path), path, [path])


def _with_base(body: dict[str, Any], path: Path, chain: list[Path]) -> dict[str, Any]:
    own = {key: value for key, value in body.items() if key != "base"}
    if "base" in body:
        own = put_over(_read_base(body["base"], path, chain), own)
    stages = own.get("stages")
    if isinstance(stages, Mapping):
        own["stages"] = {
            name: _with_base(dict(stage), path, chain) if isinstance(stage, Mapping) else stage
            for name, stage in stages.items()
        }
    return own


def _read_base(base: Any, path: Path, chain: list[Path]) -> dict[str, Any]:
    if not isinstance(base, str):
        raise ConfigError([f"base is {base!r}; expected the path of a YAML file"], str(path))
    below = (path.parent / base).resolve()
    if below in [link.resolve() for link in chain]:
        raise ConfigError([f"base: {base} leads back to a file that it is the base of"], str(path))
    if not below.is_file():
        raise ConfigError(
            [f"base: {below} does not exist; the path is relative to {path.parent.resolve()}"],
            str(path),
        )
    return _with_base(read_yaml(below), below, [*chain, below])


def put_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Like `merge`, but a dataset or scale that is null in ``over`` is taken out of ``base``.

    The scales of ``base`` do not bring such a dataset back. Holds within every stage too.
    """
    merged = merge(base, over)
    _take_out(merged, base, over, "scales")
    dropped = _take_out(merged, base, over, "datasets")
    scales, own_scales = (_mapping_at(part, "scales") for part in (merged, over))
    for name in scales:
        datasets = _mapping_at(_mapping_at(scales, name), "datasets")
        own = _mapping_at(_mapping_at(own_scales, name), "datasets")
        for dataset in (dropped - set(own)) & set(datasets):
            del merged["scales"][name]["datasets"][dataset]
    below, above = (_mapping_at(part, "stages") for part in (base, over))
    for name, stage in above.items():
        if isinstance(stage, Mapping) and isinstance(below.get(name), Mapping):
            merged["stages"][name] = put_over(below[name], stage)
    return merged


def _take_out(
    merged: dict[str, Any], base: Mapping[str, Any], over: Mapping[str, Any], key: str
) -> set[str]:
    """Removes the entries of a section that ``over`` sets to null, and returns their names."""
    below, above = (_mapping_at(part, key) for part in (base, over))
    dropped = {name for name, value in above.items() if value is None and name in below}
    for name in dropped:
        del merged[key][name]
    return dropped


def without_dropped_branches(
    overlay: Mapping[str, Any], body: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Takes out of a scale's settings the branches that the file itself sets to null.

    Args:
        overlay: Settings of the chosen scale.
        body: The file without its scales.
        options: Parsed ``--options``; a branch that they set comes back, with its scale.

    Returns:
        The settings that are left, and the names of the branches taken out.
    """
    own, scaled, wanted = (
        _mapping_at(_mapping_at(part, "model"), "branches") for part in (body, overlay, options)
    )
    dropped = {name for name, value in own.items() if value is None} - set(wanted)
    lost = [name for name in scaled if name in dropped and scaled[name] is not None]
    if not lost:
        return dict(overlay), []
    branches = {name: value for name, value in scaled.items() if name not in lost}
    return {**overlay, "model": {**overlay["model"], "branches": branches}}, lost


def _mapping_at(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def _has_tab(path: Path, mark: Any) -> bool:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return mark is not None and mark.line < len(lines) and lines[mark.line].startswith("\t")


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


def _resolve(node: Any, path: str, failures: dict[str, str]) -> Any:
    if not isinstance(node, (DictConfig, ListConfig)):
        return node
    is_map = isinstance(node, DictConfig)
    result: dict[Any, Any] = {}
    for key in list(node.keys()) if is_map else range(len(node)):
        here = f"{path}[{key}]" if not is_map else f"{path}.{key}" if path else str(key)
        try:
            result[key] = _resolve(node[key], here, failures)
        except OmegaConfBaseException as error:
            failures[here] = f"{str(error).splitlines()[0]}{_cure(error)}"
            result[key] = None
    return result if is_map else list(result.values())


def _cure(error: OmegaConfBaseException) -> str:
    if "Missing mandatory value" in str(error):
        return "; replace ??? by a value"
    return "; ${...} must name a key of this configuration, for example ${scale} or ${run.seed}"
