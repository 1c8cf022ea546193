"""What keys of the ``run:`` section must hold together, among each other and with the datasets."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lavis_msmedcap.common.config_check import describe_unknown, show
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.datasets.records import SPLITS
from lavis_msmedcap.run_relations.values import (
    STAGE_1_TASK,
    STAGE_2_TASK,
    branches_of,
    is_count,
    is_number,
    mapping,
    names,
    splits_of,
    training_ratios,
    trains,
    unread,
    world_size,
)
from lavis_msmedcap.runners.loaders import TRAIN
from lavis_msmedcap.runners.precision import choose_device
from lavis_msmedcap.runners.run_directory import obstacle
from lavis_msmedcap.runners.run_status import STATUS
from lavis_msmedcap.runners.settings import (
    AUTO,
    OFF,
    RESUME_CKPT_PATH,
    RunSettings,
    idle_selection,
    length_problems,
)
from lavis_msmedcap.runners.trackers import missing_trackers
from lavis_msmedcap.tasks.medical_captioning import Decoding
from lavis_msmedcap.tasks.metric_names import caption_metrics, pretraining_metrics

EVALUATED = ("valid_splits", "test_splits")
# pairs of which the first must not exceed the second, each with its default
ORDERED = (
    ("min_len", Decoding.min_length, "max_len", Decoding.max_length),
    ("min_lr", RunSettings.min_lr, "init_lr", RunSettings.init_lr),
)


def run_problems(
    config: Mapping[str, Any], own: Collection[str], incomplete: Collection[str]
) -> Iterator[str]:
    """Lists what does not fit together in the ``run:`` section.

    Args:
        config: All sections.
        own: Parts of this package among model, task, runner and datasets.<name>.
        incomplete: Sections with holes that are told elsewhere.
    """
    run = config["run"]
    if not config["datasets"] and "datasets" not in incomplete:
        yield "datasets: is empty; name at least one dataset"
    if config["datasets"] and not unread(config, own):
        yield from _split_problems(config, own)
        if trains(config):
            yield from _train_split_problems(config, own)
    if trains(config):
        yield from _ratio_problems(config, own)
        if "runner" in own:
            yield from _selection_problems(config, own, incomplete)
            yield from _length_problems(run)
            yield from missing_trackers(names(run.get("trackers")))
    yield from _order_problems(run)
    yield from _resume_problems(run, own)
    yield from _device_problems(run)
    yield from _process_problems(run)
    yield from _output_problems(run)


# --- splits and ratios -------------------------------------------------------------------------


def _split_problems(config: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    """Finds evaluated splits that no dataset has."""
    run = config["run"]
    # the names themselves are told already where the schema of the run section is ours
    named_well = SPLITS if {"task", "runner"} <= set(own) else None
    for key in EVALUATED:
        chosen = names(run.get(key))
        for split in chosen:
            if named_well is None or split in named_well:
                yield from _absent(config, key, split, f"set run.{key}=[] to do without")
        twice = sorted({split for split in chosen if chosen.count(split) > 1})
        if twice:
            rest = ", ".join(dict.fromkeys(chosen))
            yield f"run.{key} names {', '.join(twice)} more than once; write [{rest}]"
    if not trains(config) and not any(names(run.get(key)) for key in EVALUATED):
        yield "run.test_splits is empty, so there is nothing to evaluate; write [test] or [val]"


def _train_split_problems(config: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    chosen = config["run"].get("train_splits", [TRAIN])
    if chosen in ([], None):
        yield "run.train_splits is empty, so there is nothing to train on; write [train]"
        return
    known = [split for split in names(chosen) if split in SPLITS]
    if "runner" in own and known != [TRAIN]:
        if known and known == chosen:
            yield (
                f"run.train_splits is {show(chosen)}; only [{TRAIN}] can be trained on, because "
                f"the other splits are built for evaluation: write [{TRAIN}]"
            )
        return  # a name that is no split is told elsewhere
    for split in names(chosen):
        yield from _absent(config, "train_splits", split, f"add a dataset that has {split!r}")


def _absent(config: Mapping[str, Any], key: str, split: str, cure: str) -> Iterator[str]:
    """Says that no dataset has a split, and what all have."""
    available = {name: splits_of(settings) for name, settings in config["datasets"].items()}
    if available and not any(split in splits for splits in available.values()):
        have = "; ".join(f"{n}: {', '.join(s) or 'none'}" for n, s in available.items())
        yield (
            f"run.{key}: no dataset has a split {split!r} ({have}); name a split that one has, "
            f"or {cure}"
        )


def _ratio_problems(config: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    """Finds ratios that leave nothing to train on, and an epoch too short for its domains."""
    run, datasets = config["run"], config["datasets"]
    ratios = training_ratios(config)
    for name in mapping(run.get("train_dataset_ratios")):
        if name not in datasets:
            yield describe_unknown("run.train_dataset_ratios", str(name), datasets)
        elif name not in ratios and "runner" in own:
            yield (
                f"run.train_dataset_ratios.{name}: the dataset has no split {TRAIN!r} "
                f"({', '.join(splits_of(datasets[name])) or 'none'}), so it is not trained on; "
                "take the ratio out"
            )
    drawn = [name for name, ratio in ratios.items() if ratio > 0]
    if ratios and not drawn:
        yield (
            f"the ratios of all training datasets ({', '.join(ratios)}) are 0, so no sample would "
            "be drawn; raise run.train_dataset_ratios, or datasets.<name>.ratio"
        )
    if "runner" in own:
        yield from _epoch_problems(run, {mapping(datasets[name]).get("domain") for name in drawn})


def _length_problems(run: Mapping[str, Any]) -> Iterator[str]:
    if run.get("max_epoch", RunSettings.max_epoch) is None and run.get("max_iters") is None:
        yield (
            "run.max_epoch is null; expected a whole number of epochs, or optimizer steps in "
            "run.max_iters in its place"
        )
    yield from length_problems(run)


def _epoch_problems(run: Mapping[str, Any], domains: Collection[Any]) -> Iterator[str]:
    steps, window = run.get("iters_per_inner_epoch"), run.get("accum_grad_iters", 1)
    if is_count(steps) and is_count(window) and steps * window < len(domains):
        yield (
            f"run.iters_per_inner_epoch is {steps}, too short for a batch of each of "
            f"{len(domains)} domains; raise it to at least {-(-len(domains) // window)}"
        )
    wanted = run.get("samples_per_epoch")
    batch = run.get("batch_size_train", RunSettings.batch_size_train)
    if not is_count(wanted) or not is_count(batch):
        return
    least = len(domains) * batch * world_size()
    if wanted < least:
        yield (
            f"run.samples_per_epoch is {wanted}, but one batch of each of {len(domains)} domains "
            f"takes {least} samples; raise it to at least that, or lower run.batch_size_train"
        )


def _selection_problems(
    config: Mapping[str, Any], own: Collection[str], incomplete: Collection[str]
) -> Iterator[str]:
    """Finds a way of choosing the best epoch that no validation can serve."""
    run = config["run"]
    metric, splits = run.get("best_metric"), names(run.get("valid_splits"))
    if not run.get("valid_splits"):
        yield from idle_selection(metric, run.get("early_stopping"))
    elif isinstance(metric, str) and splits and "task" in own and not incomplete:
        known = _metric_names(config, own, splits[0])
        if known and metric not in known:
            yield describe_unknown("run.best_metric", metric, known)


def _metric_names(config: Mapping[str, Any], own: Collection[str], split: str) -> list[str]:
    """Returns the results that a validation gives; nothing where that is not known."""
    if config["run"].get("task") == STAGE_2_TASK:
        return caption_metrics()
    if config["run"].get("task") != STAGE_1_TASK or "model" not in own:
        return []
    train_on = {name: names(branch.get("train_on")) for name, branch in branches_of(config)}
    domains = {
        name: str(mapping(settings).get("domain"))
        for name, settings in config["datasets"].items()
        if split in splits_of(settings)
    }
    return pretraining_metrics(train_on, domains)


# --- numbers, devices, folders -----------------------------------------------------------------


def _order_problems(run: Mapping[str, Any]) -> Iterator[str]:
    for low, low_default, high, high_default in ORDERED:
        least, most = run.get(low, low_default), run.get(high, high_default)
        if is_number(least) and is_number(most) and least > most:
            yield f"run.{low} is {least}, more than run.{high} ({most}); swap or lower it"


def _resume_problems(run: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    checkpoint, resume = run.get("resume_ckpt_path"), run.get("resume")
    if isinstance(checkpoint, str) and "runner" in own:
        yield f"run.resume_ckpt_path: {RESUME_CKPT_PATH}"
    elif isinstance(checkpoint, str) and "://" not in checkpoint:
        place = resolve_path(checkpoint)
        if not place.exists():
            yield f"run.resume_ckpt_path: {place} does not exist; name a checkpoint"
    if isinstance(resume, str) and resume not in (AUTO, OFF):
        place = resolve_path(resume)
        if not (place / STATUS).is_file():
            yield (
                f"run.resume: {place} is no run directory (it has no {STATUS}); name the one to go "
                f"on with, or set run.resume to {AUTO} or {OFF}"
            )
            return
        reason = obstacle(resume)
        if reason and os.environ.get("RANK", "0") == "0":
            yield (
                f"run.resume: the run in {place} cannot go on there ({reason}); make the folder "
                "writable, or copy it to a place that is"
            )


def _device_problems(run: Mapping[str, Any]) -> Iterator[str]:
    device = run.get("device", "auto")
    if not isinstance(device, str):
        return
    try:
        choose_device(device.lower())
    except ConfigError as error:
        yield from error.problems
        return
    if device.lower().startswith("cuda:") and world_size() > 1:
        yield (
            f"run.device is {device}, but torchrun started {world_size()} processes, which would "
            "all take that one; set run.device=cuda, and each takes its own"
        )


def _process_problems(run: Mapping[str, Any]) -> Iterator[str]:
    """Finds a number of processes that only torchrun can change."""
    processes = world_size()
    if run.get("distributed") is False and processes > 1:
        yield (
            f"run.distributed is false, but torchrun started {processes} processes, which would "
            "all train the same; set run.distributed=true or start without torchrun"
        )
    url = run.get("dist_url", "env://")
    if isinstance(url, str) and "://" not in url:
        yield (
            f"run.dist_url is {show(url)}; expected env:// (torchrun tells the rest), or an "
            "address such as tcp://host:port"
        )
    # LAVIS' own configurations say 1, whatever torchrun does
    wanted = run.get("world_size", 1)
    if is_count(wanted) and wanted not in (1, processes):
        yield (
            f"run.world_size is {wanted}, but this is a run of {processes} process(es), which the "
            f"key does not change; start it with torchrun --nproc_per_node={wanted} -m "
            "lavis.train ..., or leave the key out"
        )


def _output_problems(run: Mapping[str, Any]) -> Iterator[str]:
    output_dir = run.get("output_dir", RunSettings.output_dir)
    reason = obstacle(output_dir) if isinstance(output_dir, str) and output_dir else None
    if reason and os.environ.get("RANK", "0") == "0":  # only the first process writes there
        yield (
            f"run.output_dir {output_dir!r} means {resolve_path(output_dir)}, where no run "
            f"directory can be made ({reason}); name a folder that you may write to"
        )
