"""What keys of a run configuration must hold together, and the files that it names.

Every function here reads plain dictionaries whose single values may be of a wrong type (that is
told elsewhere), builds nothing, and returns one sentence per problem.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lavis_msmedcap.run_relations.datasets import dataset_problems
from lavis_msmedcap.run_relations.model import model_problems
from lavis_msmedcap.run_relations.run import run_problems
from lavis_msmedcap.run_relations.tasks import task_problems
from lavis_msmedcap.run_relations.texts import text_problems


def relation_problems(
    config: Mapping[str, Any],
    user: Mapping[str, Any],
    own: Collection[str],
    incomplete: Collection[str] = (),
) -> list[str]:
    """Lists what does not fit together.

    Args:
        config: All sections, resolved; single values may still be of a wrong type.
        user: What the file and options say themselves, without packaged defaults.
        own: Parts of this package among model, task, runner and datasets.<name>.
        incomplete: Sections with holes that are told elsewhere.
    """
    problems = [
        *run_problems(config, own, incomplete),
        *task_problems(config, own),
        *dataset_problems(config, own, incomplete),
    ]
    if "model" in own:
        problems += model_problems(config, user.get("model") or {}, incomplete)
        problems += text_problems(config)
    return problems


def input_problems(parts: list[tuple[Any, Mapping[str, Any]]]) -> list[str]:
    """Asks each class with ``missing_inputs(settings)`` for the files that it does not find."""
    return [problem for cls, settings in parts for problem in cls.missing_inputs(settings)]
