"""What a run configuration names: classes of LAVIS' registry, packaged defaults, known keys.

Classes of this package are checked to the last key. For a foreign LAVIS model, task, runner or
dataset only names and the types of common keys are: its other keys are its own business.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lavis.common.registry import registry
from lavis.common.utils import get_abs_path

from lavis_msmedcap.common.config_check import (
    Key,
    Node,
    Nullable,
    Schema,
    Section,
    check,
    convert,
    describe_unknown,
    known_part,
    nearest,
)
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.config_schema import (
    DATASET_KEYS,
    FOREIGN_MODEL,
    LAVIS_RUN_KEYS,
    LR_SCHEDULES,
    PROCESSOR_NAME,
    RUN_KEYS,
    declared_keys,
)
from lavis_msmedcap.datasets.builders import register_name
from lavis_msmedcap.models.settings_schema import MODEL_SCHEMAS
from lavis_msmedcap.run_recipe import fit_to_recipe
from lavis_msmedcap.run_relations import input_problems, relation_problems
from lavis_msmedcap.run_relations.datasets import is_of_wrong_kind
from lavis_msmedcap.run_sources import Draft, merge, read_yaml

DEFAULT_RUNNER = "runner_base"  # what LAVIS takes where run.runner is not given
OWN_RUNNER = "runner_msmedcap"
SECTION_ORDER = ("scale", "name", "model", "datasets", "run")
OWN_PACKAGE = __name__.partition(".")[0]

logger = logging.getLogger(__name__)


def is_own(cls: type | None) -> bool:
    """Tells whether a class of the registry belongs to this package."""
    return cls is not None and cls.__module__.partition(".")[0] == OWN_PACKAGE


def registered(kind: str, name: Any) -> type | None:
    """Looks a class up: ``kind`` is model, task, runner, builder, processor or lr_scheduler."""
    found: type | None = _names(kind).get(name) if isinstance(name, str) else None
    return found


def _names(kind: str) -> Mapping[str, Any]:
    names: Mapping[str, Any] = registry.mapping[f"{kind}_name_mapping"]
    return names


# --- packaged defaults -------------------------------------------------------------------------


def with_defaults(draft: Draft) -> None:
    """Puts the packaged defaults that the configuration picks below its own settings."""
    draft.config = merge(_model_default(draft), draft.config)
    for name, settings in draft.user["datasets"].items():
        default = _dataset_default(draft, name, settings)
        if default:
            own = draft.config["datasets"][name]
            draft.config["datasets"][name] = merge(default, own)
        else:
            draft.incomplete.add(f"datasets.{name}")


def _model_default(draft: Draft) -> dict[str, Any]:
    default = {} if "model" in draft.incomplete else _chosen_model_default(draft)
    if not default:
        draft.incomplete.add("model")
    return {"model": default}


def _chosen_model_default(draft: Draft) -> dict[str, Any]:
    model = draft.user["model"]
    arch = model.get("arch")
    if arch is None:
        # begins as the schema's own sentence, so that the longer one alone is told
        lack = "null; expected text" if "arch" in model else "missing"
        draft.problems.append(
            f"model.arch is {lack} (the registered model, for example blip2_dual_qformer)"
        )
        return {}
    if not isinstance(arch, str):
        return {}  # told by the schema
    cls = registered("model", arch)
    if cls is None:
        draft.problems.append(describe_unknown("model.arch", str(arch), _names("model")))
        return {}
    types: Mapping[str, str] = getattr(cls, "PRETRAINED_MODEL_CONFIG_DICT", {})
    path = _chosen(draft, "model.model_type", model.get("model_type"), types, f"of {arch}")
    if path is None:
        return {}
    # its other section, preprocess, is for load_model_and_preprocess
    return dict(_read_default(draft, path).get("model") or {})


def _dataset_default(draft: Draft, name: str, settings: Any) -> dict[str, Any]:
    builder = settings.get("builder") if isinstance(settings, Mapping) else None
    if isinstance(builder, str):
        try:
            register_name(name, builder)
        except ConfigError as error:
            draft.problems += error.problems
            return {}
    cls = registered("builder", name)
    if cls is None:
        problem = describe_unknown("datasets:", str(name), _names("builder"))
        if nearest(str(name), _names("builder")) is None:
            problem += ". Or is it a table of your own? Then say 'builder: caption_table' in it"
        draft.problems.append(problem)
        return {}
    if not isinstance(settings, Mapping):
        return {}
    types: Mapping[str, str] = getattr(cls, "DATASET_CONFIG_DICT", {})
    scale = str(draft.config.get("scale"))
    wanted = settings.get("type", scale if is_own(cls) and scale in types else "default")
    path = _chosen(draft, f"datasets.{name}.type", wanted, types, f"of {name}")
    # LAVIS' own files name the dataset once; that name need not be the registered one
    sections = _read_default(draft, path).get("datasets") or {} if path else {}
    return dict(next(iter(sections.values()), None) or {})


def _chosen(
    draft: Draft, key: str, value: Any, types: Mapping[str, str], owner: str
) -> Path | None:
    if key in draft.unresolved:
        return None
    if value is None:
        known = ", ".join(types)
        absent = key == "model.model_type" and "model_type" not in draft.user["model"]
        lack = "missing" if absent else "null; expected text"
        draft.problems.append(f"{key} is {lack}; known types {owner}: {known}")
        return None
    if not isinstance(value, str):
        return None  # told by the schema
    if value not in types:
        draft.problems.append(describe_unknown(key, str(value), types))
        return None
    return Path(get_abs_path(types[value]))


def _read_default(draft: Draft, path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except ConfigError as error:
        draft.problems.extend(f"packaged default {path}: {problem}" for problem in error.problems)
        return {}


# --- the whole check ---------------------------------------------------------------------------


def check_run_config(draft: Draft) -> dict[str, Any]:
    """Checks a merged and resolved configuration; problems are added to the draft.

    Returns:
        The configuration with numbers in the types that the schema asks for.
    """
    config = {key: draft.config[key] for key in SECTION_ORDER if key in draft.config}
    schema = build_schema(config)
    problems = [
        *_schema_problems(config, schema, draft.incomplete),
        *_name_problems(config),
    ]
    draft.problems += [
        problem
        for problem in problems
        if not any(problem.startswith(f"{key} is null") for key in draft.unresolved)
    ]
    config = convert(config, schema)
    _warn_of_likely_typos(config["run"])
    own = _own_parts(config) - draft.incomplete
    if not draft.problems and {"model", "task", "runner"} <= own:
        config, notes = fit_to_recipe(config)
        draft.notes += notes
    draft.problems += relation_problems(config, draft.user, own, draft.incomplete)
    draft.problems += input_problems(_sound_inputs(config, schema))
    return config


def absent_inputs(config: Mapping[str, Any]) -> list[str]:
    """Lists the files that a checked configuration names and that are not there."""
    return input_problems(_sound_inputs(config, build_schema(config)))


def _schema_problems(
    config: Mapping[str, Any], schema: Schema, incomplete: Collection[str]
) -> list[str]:
    """Like `check`, but holes in incomplete sections are not told."""
    problems = check(config, schema)
    holes = set(problems) - set(check(config, schema, required=False))
    return [
        problem
        for problem in problems
        if problem not in holes or not problem.startswith(tuple(f"{s}." for s in incomplete))
    ]


def build_schema(config: Mapping[str, Any]) -> dict[str, Node]:
    """Puts together the schema of a configuration from the classes that it names."""
    model, run, datasets = config["model"], config["run"], config["datasets"]
    arch = model.get("arch")
    own_model = is_own(registered("model", arch)) and arch in MODEL_SCHEMAS
    model_section = Section(MODEL_SCHEMAS[arch]) if own_model else Section(FOREIGN_MODEL, open=True)
    return {
        "scale": Key(str),
        "name": Key(str),
        "model": model_section,
        "datasets": Section({name: _dataset_section(name, datasets[name]) for name in datasets}),
        "run": _run_section(run),
    }


def _own_parts(config: Mapping[str, Any]) -> set[str]:
    """Names what belongs to this package: model, task, runner, and datasets as datasets.<name>."""
    run = config["run"]
    parts = {
        "model": registered("model", config["model"].get("arch")),
        "task": registered("task", run.get("task")),
        "runner": registered("runner", run.get("runner", DEFAULT_RUNNER)),
    }
    parts.update({f"datasets.{name}": registered("builder", name) for name in config["datasets"]})
    return {name for name, cls in parts.items() if is_own(cls)}


def _run_section(run: Mapping[str, Any]) -> Section:
    task = registered("task", run.get("task"))
    runner = registered("runner", run.get("runner", DEFAULT_RUNNER))
    # an unknown name is told elsewhere; it does not make the section foreign
    if all(cls is None or is_own(cls) for cls in (task, runner)):
        return Section({**RUN_KEYS, **declared_keys(task), **declared_keys(runner)})
    return Section({**LAVIS_RUN_KEYS, **declared_keys(task), **declared_keys(runner)}, open=True)


def _dataset_section(name: str, settings: Any) -> Section:
    builder = registered("builder", name)
    if not is_own(builder):
        return Section({"type": Key(str), "data_type": Key(str)}, open=True)
    given = settings if isinstance(settings, Mapping) else {}
    processors = {
        key: _processor_section(key, given.get(key)) for key in ("vis_processor", "text_processor")
    }
    return Section({**DATASET_KEYS, **declared_keys(builder), **processors})


def _processor_section(key: str, settings: Any) -> Section:
    settings = settings if isinstance(settings, Mapping) else {}
    parts: dict[str, Node] = {}
    for part in ("train", "eval"):
        chosen = settings.get(part)
        name = chosen.get("name") if isinstance(chosen, Mapping) else None
        cls = registered("processor", name)
        # keys left over from a processor of the right kind are no news beside a wrong one
        known = hasattr(cls, "CONFIG_KEYS") and not is_of_wrong_kind(key, name)
        keys = {**(declared_keys(cls) if known else {}), **PROCESSOR_NAME}
        parts[part] = Section(keys, required=True, open=not known, help="name of a processor")
    return Section(parts, required=True, help="processors for train and eval")


def _name_problems(config: Mapping[str, Any]) -> list[str]:
    run = config["run"]
    problems = []
    for kind, name in (("task", run.get("task")), ("runner", run.get("runner", DEFAULT_RUNNER))):
        problems += _unregistered(kind, f"run.{kind}", name)
    runner = registered("runner", run.get("runner", DEFAULT_RUNNER))
    own_runner = is_own(runner)
    if is_own(registered("task", run.get("task"))) and runner is not None and not own_runner:
        problems.append(
            f"run.task {run['task']} needs run.runner: {OWN_RUNNER}; LAVIS' "
            f"{run.get('runner', DEFAULT_RUNNER)} cannot drive it"
        )
    schedules: Collection[str] = LR_SCHEDULES if own_runner else _names("lr_scheduler")
    schedule = run.get("lr_sched")
    if isinstance(schedule, str) and schedule not in schedules:
        problems.append(describe_unknown("run.lr_sched", schedule, schedules))
    for dataset, settings in config["datasets"].items():
        for key in ("vis_processor", "text_processor"):
            parts = settings.get(key) if isinstance(settings, Mapping) else None
            for part, chosen in (parts if isinstance(parts, Mapping) else {}).items():
                name = chosen.get("name") if isinstance(chosen, Mapping) else None
                path = f"datasets.{dataset}.{key}.{part}.name"
                problems += _unregistered("processor", path, name)
    return problems


def _unregistered(kind: str, path: str, name: Any) -> list[str]:
    if not isinstance(name, str) or name in _names(kind):
        return []
    return [describe_unknown(path, name, _names(kind))]


def _warn_of_likely_typos(run: Mapping[str, Any]) -> None:
    """A foreign task may read keys of its own, so an odd key there can only be a warning."""
    section = _run_section(run)
    for key in run:
        near = nearest(str(key), section.keys, likeness=0.85)
        if section.open and key not in section.keys and near:
            logger.warning("run.%s is no key that LAVIS' own code reads; is it run.%s?", key, near)


def _sound_inputs(
    config: Mapping[str, Any], schema: Mapping[str, Node]
) -> list[tuple[Any, Mapping[str, Any]]]:
    """Returns the classes that can say what files they miss, each with its settings.

    Settings with a wrong type or a hole are left out: they are reported already, and the class
    could not read them.
    """
    candidates = [(registered("model", config["model"].get("arch")), config["model"], "model")]
    candidates += [
        (registered("builder", name), settings, f"datasets.{name}")
        for name, settings in config["datasets"].items()
    ]
    sound: list[tuple[Any, Mapping[str, Any]]] = []
    for cls, settings, path in candidates:
        if cls is None or not hasattr(cls, "missing_inputs"):
            continue
        top, _, name = path.partition(".")
        node = schema[top]
        if name and isinstance(node, Section):
            node = node.keys[name]
        inner = node.of if isinstance(node, Nullable) else node
        if not isinstance(settings, Mapping) or not isinstance(inner, Section):
            continue
        if not check(settings, inner.keys, path, unknown=False):
            sound.append((cls, known_part(settings, inner)))
    return sound
