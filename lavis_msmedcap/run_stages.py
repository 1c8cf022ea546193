"""Files of several stages: one command pre-trains, captions and evaluates.

    stages:
      pretrain: {base: ../pretrain_mixed.yaml}
      caption: {base: ../caption.yaml, model: {stage1: ...}}
    model: ...        # model, datasets, run, scale, scales and name hold for every stage

Each stage is a run configuration of its own: what it says itself (its ``base`` first), with what
the file says for all stages on top. ``stages.<name>=null`` leaves a stage out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.config_check import describe_unknown, show
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.run_sources import merge, put_over

# keys of a model that name the result of an earlier run
FROM_EARLIER_RUNS = ("stage1", "finetuned")


@dataclass(frozen=True)
class Stage:
    """One run of a file.

    Attributes:
        name: Its name under ``stages:``; "" for a file that is a single run.
        body: The run configuration, before scale, defaults and options.
        options: What ``--options`` say about it.
    """

    name: str
    body: dict[str, Any]
    options: dict[str, Any]


def split_stages(body: Mapping[str, Any], path: Path, options: Mapping[str, Any]) -> list[Stage]:
    """Makes a run configuration of each stage; a file without ``stages:`` is one stage.

    Args:
        body: The file, ``base`` already put under it.
        path: Where it is, for messages.
        options: Parsed ``--options``; ``stages.<name>.<key>`` is for one stage, all else for all.

    Raises:
        ConfigError: If ``stages:`` is not a mapping of mappings, an option names a stage that is
            not there, or no stage is left.
    """
    common_options = {key: value for key, value in options.items() if key != "stages"}
    if "stages" not in body:
        if "stages" in options:
            raise ConfigError(["--options stages: the file has no stages"], str(path))
        return [Stage("", dict(body), common_options)]
    stages, chosen = body["stages"], options.get("stages", {})
    problems = _stage_problems(stages, chosen)
    if problems:
        raise ConfigError(problems, str(path))
    common = {key: value for key, value in body.items() if key != "stages"}
    split = [
        Stage(name, put_over(own, common), merge(common_options, chosen.get(name) or {}))
        for name, own in stages.items()
        if own is not None and not (name in chosen and chosen[name] is None)
    ]
    if not split:
        raise ConfigError(["stages: every stage is null; keep at least one"], str(path))
    return split


def _stage_problems(stages: Any, chosen: Any) -> list[str]:
    if not isinstance(stages, Mapping) or not stages:
        return [f"stages is {show(stages)}; expected run configurations by name"]
    problems = [
        f"stages.{name} is {show(own)}; expected a run configuration, or null to leave it out"
        for name, own in stages.items()
        if own is not None and not isinstance(own, Mapping)
    ]
    if not isinstance(chosen, Mapping):
        return [*problems, f"--options stages is {show(chosen)}; write stages.<name>.<key>=value"]
    for name, settings in chosen.items():
        if name not in stages:
            problems.append(f"--options {describe_unknown('stages', str(name), stages)}")
        elif settings is not None and not isinstance(settings, Mapping):
            problems.append(
                f"--options stages.{name} is {show(settings)}; write stages.{name}.<key>=value, or "
                f"stages.{name}=null to leave it out"
            )
    return problems


def evaluating(stages: Sequence[Stage], path: Path) -> list[Stage]:
    """Keeps the stages that evaluate; a file that is a single run is kept as it is.

    Raises:
        ConfigError: If none of several stages evaluates.
    """
    if len(stages) == 1:
        return list(stages)
    kept = [stage for stage in stages if _mapping(stage.body.get("run")).get("evaluate") is True]
    if not kept:
        names = ", ".join(stage.name for stage in stages)
        raise ConfigError(
            [f"stages: none of {names} has run.evaluate: true; use lavis.train"], str(path)
        )
    return kept


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def made_by_earlier(
    problems: Sequence[str], model: Mapping[str, Any], earlier: Sequence[Any]
) -> list[str]:
    """Leaves out complaints about a checkpoint that an earlier stage will write.

    Args:
        problems: Problems of a stage.
        model: Its resolved ``model:`` section.
        earlier: ``run.output_dir`` of the stages before it.
    """
    promised = [
        f"model.{key}: "
        for key in FROM_EARLIER_RUNS
        if model.get(key) is not None and model[key] in earlier
    ]
    return [problem for problem in problems if not problem.startswith(tuple(promised))]
