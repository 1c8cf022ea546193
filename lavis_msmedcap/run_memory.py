"""What `memory` needs of a run configuration, whose files may still be absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.memory.advice import Plan
from lavis_msmedcap.memory.estimate import RunSettings
from lavis_msmedcap.memory.shapes import read_shape
from lavis_msmedcap.run_config import RunConfig, resolve_stages
from lavis_msmedcap.runners.settings import AMP_MODES


def plans_of(
    cfg_path: str, options: Sequence[str], batch_size: int | None = None, processes: int = 1
) -> dict[str, Plan]:
    """Reads what costs memory from a run configuration, of each of its stages.

    Missing data and weights do not matter: nothing of them is read.

    Args:
        cfg_path: YAML file.
        options: Words behind ``--options``.
        batch_size: Instead of the batch sizes of the run, for training and inference.
        processes: How many share the LLM where ``run.shard_llm`` is true.

    Returns:
        By the name of the stage; "" in a file without stages.

    Raises:
        ConfigError: If the configuration has other problems, or its model is not of this package.
    """
    stages = resolve_stages(cfg_path, options)
    problems = [f"{c.prefix}{problem}" for c, found in stages for problem in _problems(c, found)]
    if batch_size is not None and batch_size < 1:
        problems.append(f"--batch-size is {batch_size}; expected at least 1")
    if processes < 1:
        problems.append(f"--processes is {processes}; expected at least 1")
    if problems:
        raise ConfigError(problems, str(stages[0][0].source))
    return {config.stage: plan_of(config.to_dict(), batch_size, processes) for config, _ in stages}


def _problems(config: RunConfig, found: Sequence[str]) -> list[str]:
    """Leaves out the problems that are only about files that are not there."""
    from lavis_msmedcap.run_checks import absent_inputs, is_own, registered

    sections = config.to_dict()
    absent = tuple(absent_inputs(sections))
    bare = [problem.removeprefix(config.prefix) for problem in found]
    rest = [problem for problem in bare if not problem.startswith(absent)]
    arch = sections["model"].get("arch")
    if not is_own(registered("model", arch)):
        rest.append(f"model.arch is {arch}; the estimate knows this package's models")
    return rest


def plan_of(sections: Mapping[str, Any], batch_size: int | None = None, processes: int = 1) -> Plan:
    """Reads what costs memory from the sections of one stage.

    Args:
        sections: Of a configuration whose ``model:`` has no problem, and is of this package.
        batch_size: Instead of the batch sizes of the run.
        processes: See `plans_of`.

    Raises:
        WeightsError: If the sizes of the LLM are unknown without its files.
    """
    model = sections["model"]
    return Plan(model, _run_settings(sections["run"], batch_size, processes), read_shape(model))


def _run_settings(run: Mapping[str, Any], batch_size: int | None, processes: int) -> RunSettings:
    amp = run.get("amp", "off")
    return RunSettings(
        batch_size_train=batch_size or run.get("batch_size_train", 1),
        accum_grad_iters=run.get("accum_grad_iters", 1),
        batch_size_eval=batch_size or run.get("batch_size_eval", 1),
        amp=amp if amp in AMP_MODES else ("fp16" if amp is True else "off"),
        num_beams=run.get("num_beams", 5),
        max_len=run.get("max_len", 30),
        trains=run.get("evaluate") is not True,
        averages=run.get("ema_decay") is not None,
        llm_shares=processes if run.get("shard_llm") is True else 1,
    )
