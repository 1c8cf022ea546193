"""What `memory` needs of a run configuration, whose files may still be absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.memory.advice import Plan
from lavis_msmedcap.memory.estimate import RunSettings
from lavis_msmedcap.memory.shapes import read_shape
from lavis_msmedcap.run_config import resolve_run_config
from lavis_msmedcap.runners.settings import AMP_MODES


def plan_of(cfg_path: str, options: Sequence[str], batch_size: int | None = None) -> Plan:
    """Reads what costs memory from a run configuration.

    Missing data and weights do not matter: nothing of them is read.

    Args:
        cfg_path: YAML file.
        options: Words behind ``--options``.
        batch_size: Instead of the batch sizes of the run, for training and inference.

    Raises:
        ConfigError: If the configuration has other problems, or its model is not of this package.
    """
    from lavis_msmedcap.run_checks import absent_inputs, is_own, registered

    config, problems = resolve_run_config(cfg_path, options)
    sections = config.to_dict()
    model = sections["model"]
    absent = tuple(absent_inputs(sections))
    rest = [problem for problem in problems if not problem.startswith(absent)]
    if not is_own(registered("model", model.get("arch"))):
        rest.append(f"model.arch is {model.get('arch')}; the estimate knows this package's models")
    if batch_size is not None and batch_size < 1:
        rest.append(f"--batch-size is {batch_size}; expected at least 1")
    if rest:
        raise ConfigError(rest, str(config.source))
    return Plan(model, _run_settings(sections["run"], batch_size), read_shape(model))


def _run_settings(run: Mapping[str, Any], batch_size: int | None) -> RunSettings:
    amp = run.get("amp", "off")
    return RunSettings(
        batch_size_train=batch_size or run.get("batch_size_train", 1),
        accum_grad_iters=run.get("accum_grad_iters", 1),
        batch_size_eval=batch_size or run.get("batch_size_eval", 1),
        amp=amp if amp in AMP_MODES else ("fp16" if amp is True else "off"),
        num_beams=run.get("num_beams", 5),
        max_len=run.get("max_len", 30),
    )
