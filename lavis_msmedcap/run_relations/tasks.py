"""Whether the task of a run, its model, its splits and its datasets belong together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lavis_msmedcap.run_relations.values import (
    STAGE_1_TASK,
    STAGE_2_TASK,
    evaluated_splits,
    names,
)
from lavis_msmedcap.runners.loaders import TRAIN

ARCH_OF_TASK = {STAGE_1_TASK: "blip2_dual_qformer", STAGE_2_TASK: "msmedcap"}
TASK_OF_ARCH = {arch: task for task, arch in ARCH_OF_TASK.items()}
# what LAVIS' tasks read without a default, and do not say when it is missing
LAVIS_TASK_KEYS = dict.fromkeys(
    ("captioning", "dialogue"), ("num_beams", "max_len", "min_len", "evaluate")
)
# what LAVIS' tasks read of the samples that they evaluate, and ours do not have
LAVIS_TASK_SAMPLES = {
    **dict.fromkeys(("captioning", "dialogue"), "numbers as image ids"),
    **dict.fromkeys(
        ("vqa", "aok_vqa", "gqa", "vqa_reading_comprehension", "gqa_reading_comprehension"),
        "questions and answers",
    ),
    "retrieval": "texts to retrieve",
    "multimodal_classification": "labels",
}
NUMBERED_IMAGES = ("coco2014_caption",)  # our datasets whose image ids are numbers


def task_problems(config: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    """Lists what the task of the run cannot work with.

    Args:
        config: All sections.
        own: Parts of this package among model, task, runner and datasets.<name>.
    """
    if "task" in own:
        yield from _stage_problems(config, own)
        yield from _reference_problems(config["run"])
    else:
        yield from _foreign_problems(config, own)


def _stage_problems(config: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    task, arch = config["run"].get("task"), config["model"].get("arch")
    wanted = ARCH_OF_TASK.get(str(task))
    if "model" not in own or wanted is None or arch == wanted:
        return
    fitting = TASK_OF_ARCH.get(str(arch))
    cure = f"set run.task={fitting}, or model.arch={wanted}" if fitting else f"set it to {wanted}"
    yield f"model.arch is {arch}, but run.task is {task}, which is for {wanted}; {cure}"


def _reference_problems(run: Mapping[str, Any]) -> Iterator[str]:
    """Finds the train split where captions are scored: its samples carry no references."""
    if run.get("task") != STAGE_2_TASK:
        return
    for key in ("valid_splits", "test_splits"):
        if TRAIN in names(run.get(key)):
            rest = ", ".join(split for split in names(run.get(key)) if split != TRAIN)
            yield (
                f"run.{key} names {TRAIN}, whose samples have no references to score captions "
                f"against; write {f'[{rest}]' if rest else '[val] or [test]'}"
            )


def _foreign_problems(config: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    run, task = config["run"], str(config["run"].get("task"))
    exempt = NUMBERED_IMAGES if task in LAVIS_TASK_KEYS else ()
    unfit = [name for name in config["datasets"] if f"datasets.{name}" in own]
    unfit = [name for name in unfit if name not in exempt]
    if task in LAVIS_TASK_SAMPLES and unfit and evaluated_splits(run):
        fitting = TASK_OF_ARCH.get(str(config["model"].get("arch")), STAGE_2_TASK)
        yield (
            f"run.task is {task}, LAVIS' task, which evaluates with {LAVIS_TASK_SAMPLES[task]}, "
            f"and {', '.join(unfit)} have none; set run.task={fitting}"
        )
        return
    missing = [key for key in LAVIS_TASK_KEYS.get(task, ()) if run.get(key) is None]
    if missing:
        yield (
            f"run.task is {task}, which needs {', '.join(f'run.{key}' for key in missing)}; "
            "add what is missing"
        )
