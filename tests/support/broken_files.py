"""Configuration files with one mistake each, and what its message must contain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def drop(*keys: str) -> Callable[[dict[str, Any]], None]:
    def edit(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return edit


def put(value: Any, *keys: str) -> Callable[[dict[str, Any]], None]:
    def edit(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config.setdefault(key, {})
        config[keys[-1]] = value

    return edit


BROKEN_FILES = {
    "unknown_top_level": (put({}, "trainer"), "'trainer' is unknown", "model, name, run, scale"),
    "preprocess": (put({}, "preprocess"), "preprocess:", "datasets.<name>.vis_processor"),
    "no_task": (drop("run", "task"), "run.task is missing", "the registered task"),
    "no_arch": (drop("model", "arch"), "model.arch is missing", "blip2_dual_qformer"),
    "no_model_type": (drop("model", "model_type"), "model.model_type is missing", "demo, paper"),
    "empty_dataset": (put(None, "datasets", "roco"), "datasets.roco is empty", "'roco: {}'"),
    "dataset_as_text": (put("demo", "datasets", "roco"), "datasets.roco is 'demo'", "a mapping"),
    "placeholder": (put("???", "run", "seed"), "run.seed", "replace ???"),
    "text_for_a_number": (put("three", "run", "seed"), "run.seed is 'three'", "a whole"),
    "scale_as_list": (put(["demo"], "scale"), "scale \"['demo']\" is unknown", "'demo'"),
    "no_scale": (drop("scale"), "scales: has no effect", "add 'scale: demo'"),
    "scales_as_list": (put([1], "scales"), "scales is [1]", "settings by scale"),
    "overlay_section": (
        put({}, "scales", "paper", "rnu"),
        "scales.paper: key 'rnu' is unknown",
        "did you mean 'run'?",
    ),
    "overlay_typo": (
        put(3, "scales", "demo", "run", "max_epohc"),
        "run.max_epohc is not a known key",
        "run.max_epoch",
    ),
    "null_section": (put(None, "run", "train_dataset_ratios", "roco"), "roco is null", "a number"),
    "processor_removed": (
        put({"train": None}, "datasets", "roco", "vis_processor"),
        "datasets.roco.vis_processor.train is null",
        "expected a mapping",
    ),
}

BROKEN_TEXTS = {
    "not_yaml": ("model:\n  arch: [a\nrun: {}\n", "line 3", "not YAML"),
    "tab": ("model:\n\tarch: a\n", "line 2", "spaces, not tabs"),
    "duplicate_key": ("run:\n  seed: 1\n  seed: 2\n", "line 3", "duplicate key seed"),
    "code": ("run: !!python/object/apply:os.getcwd []\n", "line 1", "not YAML"),
    "brace": ("run: {seed: '${x'}\n", "run.seed", "both braces"),
    "empty": ("# nothing\n", "is empty", "model, datasets and run"),
    "list": ("- 1\n", "is not a mapping", "model, datasets and run"),
}
