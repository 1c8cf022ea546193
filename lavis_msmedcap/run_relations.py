"""What keys of a run configuration must hold together, and the files that it names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lavis_msmedcap.common.config_check import describe_unknown, show
from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.datasets.records import DOMAINS, SPLITS
from lavis_msmedcap.models.checkpoints import find_checkpoint
from lavis_msmedcap.models.encoders.clip_l import MLP_RATIO
from lavis_msmedcap.models.encoders.sam import POOL
from lavis_msmedcap.models.encoders.sam_sizes import size_conflict
from lavis_msmedcap.models.precision import precision_problem
from lavis_msmedcap.models.quantization import QUANTIZATIONS, device_problem
from lavis_msmedcap.models.weight_files import is_url
from lavis_msmedcap.models.weights import PRECISIONS
from lavis_msmedcap.runners.precision import choose_device

STAGE_1_TASK = "mixed_semantic_pretrain"
OWN_IMAGE_PROCESSORS = "msmedcap_image_"
VIEW_KEYS = {"clip": "image_size", "sam": "sam_image_size"}  # branch to the processor's key
ENCODER_OF_WEIGHTS = {"eva_vit_g": "eva_clip", "clip_vit_l": "clip_l"}  # names of the catalog
SPLIT_KEYS = ("train_splits", "valid_splits", "test_splits")


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
        *_split_problems(config, own),
        *_run_problems(config),
        *_resume_problems(config["run"], own),
        *_device_problems(config["run"]),
    ]
    if "model" in own:
        problems += _model_problems(config["model"], user.get("model") or {})
        problems += _branch_problems(config, incomplete)
        problems += _view_problems(config)
        problems += _precision_problems(config)
        problems += _underflow_problems(config)
    return problems


def input_problems(parts: list[tuple[Any, Mapping[str, Any]]]) -> list[str]:
    """Asks each class with ``missing_inputs(settings)`` for the files that it does not find."""
    return [problem for cls, settings in parts for problem in cls.missing_inputs(settings)]


# --- run: --------------------------------------------------------------------------------------


def _split_problems(config: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    run, datasets = config["run"], config["datasets"]
    if not datasets:
        yield "datasets: is empty; name at least one dataset"
        return
    available = {name: splits_of(settings) for name, settings in datasets.items()}
    known = {split for splits in available.values() for split in splits}
    # the names themselves are told already where the schema of the run section is ours
    named_well = SPLITS if {"task", "runner"} <= set(own) else None
    for key in SPLIT_KEYS:
        for split in _names(run.get(key)):
            if split not in known and (named_well is None or split in named_well):
                have = "; ".join(f"{n}: {', '.join(s) or 'none'}" for n, s in available.items())
                yield f"run.{key}: no dataset has a split {split!r} ({have})"
    if run.get("evaluate") is True:
        if not _names(run.get("test_splits")) and not _names(run.get("valid_splits")):
            yield "run.test_splits is empty, so there is nothing to evaluate; write [test] or [val]"
    elif run.get("train_splits", SPLITS) in ([], None):
        yield "run.train_splits is empty, so there is nothing to train on; write [train]"


def splits_of(settings: Any) -> tuple[str, ...]:
    """Returns the splits that a dataset's settings ask for: a list, or those with annotations."""
    listed = _map(settings).get("splits")
    if isinstance(listed, list):
        return tuple(_names(listed))
    annotations = _map(_map(settings).get("build_info")).get("annotations")
    if not isinstance(annotations, Mapping):
        return SPLITS
    return tuple(split for split in SPLITS if annotations.get(split))


def _run_problems(config: Mapping[str, Any]) -> Iterator[str]:
    run, datasets = config["run"], config["datasets"]
    ratios = run.get("train_dataset_ratios")
    if isinstance(ratios, Mapping):
        for name in ratios:
            if name not in datasets:
                yield describe_unknown("run.train_dataset_ratios", str(name), datasets)
        if set(ratios) >= set(datasets) and not any(ratios.values()):
            yield "run.train_dataset_ratios are all 0, so no sample would be drawn"
    for low, high in (("min_len", "max_len"), ("min_lr", "init_lr")):
        if _is_number(run.get(low)) and _is_number(run.get(high)) and run[low] > run[high]:
            yield f"run.{low} is {run[low]}, more than run.{high} ({run[high]}); swap or lower it"


def _resume_problems(run: Mapping[str, Any], own: Collection[str]) -> Iterator[str]:
    resume = run.get("resume_ckpt_path")
    if not isinstance(resume, str):
        return
    if "runner" in own:  # which refuses it, but not before everything is built
        yield (
            "run.resume_ckpt_path: this version cannot take up an interrupted run; to start from "
            "its weights, set model.load_finetuned=true, model.finetuned to its run directory, and "
            "run.resume_ckpt_path=null"
        )
    elif "://" not in resume and not resolve_path(resume).exists():
        yield f"run.resume_ckpt_path: {resolve_path(resume)} does not exist; name a checkpoint"


def _device_problems(run: Mapping[str, Any]) -> Iterator[str]:
    device = run.get("device", "auto")
    if isinstance(device, str):
        try:
            choose_device(device.lower())
        except ConfigError as error:
            yield from error.problems
    processes = os.environ.get("WORLD_SIZE", "1")
    if run.get("distributed") is False and processes not in ("", "1"):
        yield (
            f"run.distributed is false, but torchrun started {processes} processes, which would "
            "all train the same; set run.distributed=true or start without torchrun"
        )


# --- model: ------------------------------------------------------------------------------------


def _model_problems(model: Mapping[str, Any], user: Mapping[str, Any]) -> Iterator[str]:
    finetuned = model.get("finetuned")
    if model.get("load_finetuned") is True and finetuned is None:
        yield (
            "model.load_finetuned is true, but model.finetuned is null; name a checkpoint or a run "
            "directory, or set model.load_finetuned=false"
        )
    if model.get("load_finetuned") is not True and user.get("finetuned") is not None:
        yield (
            f"model.finetuned is {show(finetuned)}, but not used, because model.load_finetuned is "
            "not true; set model.load_finetuned=true"
        )
    if model.get("load_finetuned") is True and user.get("stage1") is not None:
        yield (
            f"model.stage1 is {show(user['stage1'])}, but not used, because model.load_finetuned "
            "is true; set model.load_finetuned=false, or model.stage1=null"
        )
    if model.get("load_finetuned") is True and isinstance(finetuned, str):
        cure = "; train first, or set model.finetuned to the checkpoint of an earlier run"
        yield from (f"{problem}{cure}" for problem in _no_checkpoint("model.finetuned", finetuned))
    branches = model.get("branches")
    if isinstance(branches, Mapping) and not any(branches.values()):
        yield "model.branches: every branch is null; keep clip, sam, or both"
    sizes = model.get("qformer")
    if isinstance(sizes, Mapping):
        yield from _indivisible("model.qformer", sizes, "hidden_size", "num_heads")


def _no_checkpoint(key: str, location: str) -> Iterator[str]:
    if is_url(location):  # the model itself says what it misses
        return
    try:
        find_checkpoint(location)
    except WeightsError as error:
        yield f"{key}: {error}"


def _branch_problems(config: Mapping[str, Any], incomplete: Collection[str]) -> Iterator[str]:
    domains = {_map(dataset).get("domain") for dataset in config["datasets"].values()}
    run = config["run"]
    trains = run.get("task") == STAGE_1_TASK and run.get("evaluate") is not True
    trains = trains and not any(part.startswith("datasets") for part in incomplete)
    for name, branch in branches_of(config):
        path = f"model.branches.{name}"
        wanted = [domain for domain in _names(branch.get("train_on")) if domain in DOMAINS]
        # an empty list says so on purpose: the branch keeps its starting weights
        if trains and wanted and not domains & set(wanted):
            yield (
                f"{path}.train_on is [{', '.join(wanted)}], but no dataset of this run is of that "
                f"domain, so the branch would not train; add such a dataset, or write "
                f"{path}.train_on=[] to keep its starting weights, or {path}=null to drop it"
            )
        yield from _encoder_problems(f"{path}.encoder", _map(branch.get("encoder")))


def _encoder_problems(path: str, encoder: Mapping[str, Any]) -> Iterator[str]:
    yield from _indivisible(path, encoder, "image_size", "patch_size")
    yield from _indivisible(path, encoder, "width", "num_heads")
    depth, blocks = encoder.get("depth"), encoder.get("global_attn_indexes")
    if isinstance(depth, int) and isinstance(blocks, list):
        beyond = [block for block in blocks if isinstance(block, int) and block >= depth]
        if beyond:
            yield (
                f"{path}.global_attn_indexes has {beyond}, but the blocks of depth {depth} count "
                f"from 0 to {depth - 1}"
            )
    conflict = size_conflict(encoder)
    if conflict:
        yield f"{path}.{conflict}"
    if encoder.get("name") == "clip_l" and encoder.get("mlp_ratio", MLP_RATIO) != MLP_RATIO:
        yield f"{path}.mlp_ratio is {encoder['mlp_ratio']}, but that of clip_l is always 4"
    yield from _pool_problems(path, encoder)
    name, weights = encoder.get("name"), encoder.get("weights")
    meant = ENCODER_OF_WEIGHTS.get(weights) if isinstance(weights, str) else None
    if meant is not None and name in ENCODER_OF_WEIGHTS.values() and meant != name:
        fitting = next(known for known, of in ENCODER_OF_WEIGHTS.items() if of == name)
        yield (
            f"{path}.weights is {weights}, which is for {meant}, but {path}.name is {name}; set "
            f"{path}.weights={fitting}"
        )


def _pool_problems(path: str, encoder: Mapping[str, Any]) -> Iterator[str]:
    side, patch, pool = (
        encoder.get("image_size"),
        encoder.get("patch_size"),
        encoder.get("pool", POOL),
    )
    if encoder.get("tokens") != "spatial_pooled" or not isinstance(pool, int) or pool < 1:
        return
    if isinstance(side, int) and isinstance(patch, int) and patch > 0 and (side // patch) % pool:
        yield (
            f"{path}.pool is {pool}, which does not divide the {side // patch} positions per side "
            "(image_size / patch_size)"
        )


def _view_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Finds processors that make views of another size than the encoders take."""
    for dataset, settings in config["datasets"].items():
        for part, processor in _map(_map(settings).get("vis_processor")).items():
            if not str(_map(processor).get("name")).startswith(OWN_IMAGE_PROCESSORS):
                continue
            path = f"datasets.{dataset}.vis_processor.{part}"
            for branch_name, branch in branches_of(config):
                key = VIEW_KEYS.get(branch_name, "")
                side = _map(branch.get("encoder")).get("image_size")
                if side is not None and processor.get(key) != side:
                    yield (
                        f"{path}.{key} is {show(processor.get(key))}, but the encoder of the "
                        f"{branch_name} branch takes {side} pixels "
                        f"(model.branches.{branch_name}.encoder.image_size); make them equal"
                    )


def _precision_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Finds precisions that the device of the run cannot compute in."""
    try:
        device = choose_device(str(config["run"].get("device", "auto")).lower())
    except ConfigError:
        return  # told elsewhere
    model = config["model"]
    places = {
        f"model.branches.{name}.encoder.precision": _map(branch.get("encoder"))
        for name, branch in branches_of(config)
    }
    places |= {f"model.{key}.precision": _map(model.get(key)) for key in ("qformer", "llm")}
    for key, section in places.items():
        precision = section.get("precision", "fp32")
        problem = precision_problem(precision, device) if precision in PRECISIONS else None
        if problem:
            yield f"{key} is {precision}, but {problem}; set {key}=fp32"
    quantization = _map(model.get("llm")).get("quantization")
    if quantization in QUANTIZATIONS and (problem := device_problem(quantization, device)):
        yield f"model.llm.quantization is {quantization}: {problem}"


def _underflow_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Finds a float16 LLM in a training without loss scaling."""
    run, precision = config["run"], _map(config["model"].get("llm")).get("precision")
    scaled = run.get("amp") in ("fp16", True)
    if precision == "fp16" and not scaled and run.get("evaluate") is not True:
        yield (
            "model.llm.precision is fp16, but run.amp is not: the gradient passes through the LLM, "
            "and without loss scaling small values of it become 0; set model.llm.precision=bf16, "
            "or run.amp=fp16"
        )


def branches_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the branches that are not null."""
    for name, branch in _map(config["model"].get("branches")).items():
        if isinstance(branch, Mapping):
            yield str(name), branch


def _indivisible(path: str, settings: Mapping[str, Any], whole: str, part: str) -> Iterator[str]:
    total, by = settings.get(whole), settings.get(part)
    if isinstance(total, int) and isinstance(by, int) and by > 0 and total % by:
        yield f"{path}.{whole} is {total}, which {path}.{part} ({by}) does not divide"


def _names(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
