"""What keys of the ``model:`` section must hold together, among each other and with the rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lavis_msmedcap.common.config_check import show
from lavis_msmedcap.common.errors import ConfigError, WeightsError
from lavis_msmedcap.datasets.records import DOMAINS
from lavis_msmedcap.models.checkpoints import find_checkpoint
from lavis_msmedcap.models.encoders.clip_l import MLP_RATIO
from lavis_msmedcap.models.encoders.sam import POOL
from lavis_msmedcap.models.encoders.sam_sizes import size_conflict
from lavis_msmedcap.models.precision import precision_problem
from lavis_msmedcap.models.quantization import QUANTIZATIONS, device_problem
from lavis_msmedcap.models.starting_points import SCRATCH, untrained_branches
from lavis_msmedcap.models.weight_files import is_url
from lavis_msmedcap.models.weights import PRECISIONS
from lavis_msmedcap.run_relations.values import (
    STAGE_1_TASK,
    branches_of,
    evaluated_splits,
    is_count,
    mapping,
    names,
    splits_of,
    training_ratios,
    trains,
    world_size,
)
from lavis_msmedcap.runners.precision import choose_device
from lavis_msmedcap.runners.settings import RunSettings

OWN_IMAGE_PROCESSORS = "msmedcap_image_"
VIEW_KEYS = {"clip": "image_size", "sam": "sam_image_size"}  # branch to the processor's key
ENCODER_OF_WEIGHTS = {"eva_vit_g": "eva_clip", "clip_vit_l": "clip_l"}  # names of the catalog
ENCODER_OF_BLIP2 = {"blip2_pretrained": "eva_clip", "blip2_pretrained_vitL": "clip_l"}
OBJECTIVES = ("itc", "itm", "lm")
NEEDING_NEGATIVES = ("itc", "itm")


def model_problems(
    config: Mapping[str, Any], user: Mapping[str, Any], incomplete: Collection[str]
) -> Iterator[str]:
    """Lists what does not fit together in the section of a model of this package.

    Args:
        config: All sections.
        user: What the file and options say themselves about the model.
        incomplete: Sections with holes that are told elsewhere.
    """
    yield from _weights_problems(config["model"], user)
    yield from _blip2_problems(config["model"])
    yield from _size_problems(config["model"])
    yield from _branch_problems(config, incomplete)
    yield from _objective_problems(config)
    if "run" not in incomplete:
        yield from _negative_problems(config)
    yield from _view_problems(config)
    yield from _precision_problems(config)
    yield from _underflow_problems(config)
    yield from _division_problems(config)


def _weights_problems(model: Mapping[str, Any], user: Mapping[str, Any]) -> Iterator[str]:
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


def _blip2_problems(model: Mapping[str, Any]) -> Iterator[str]:
    """Finds a CLIP branch that starts from the Q-Former of another encoder."""
    branch = mapping(mapping(model.get("branches")).get("clip"))
    name = mapping(branch.get("encoder")).get("name")
    by_word = branch.get("init") == "blip2"
    key = "model.pretrained.blip2" if by_word else "model.branches.clip.init"
    weights = mapping(model.get("pretrained")).get("blip2") if by_word else branch.get("init")
    meant = ENCODER_OF_BLIP2.get(weights) if isinstance(weights, str) else None
    if meant is not None and name in ENCODER_OF_BLIP2.values() and meant != name:
        fitting = next(known for known, of in ENCODER_OF_BLIP2.items() if of == name)
        yield (
            f"{key} is {weights}, whose Q-Former reads {meant}, but model.branches.clip.encoder."
            f"name is {name}; set {key}={fitting}"
        )


def _size_problems(model: Mapping[str, Any]) -> Iterator[str]:
    branches = model.get("branches")
    if isinstance(branches, Mapping) and not any(branches.values()):
        yield "model.branches: every branch is null; keep clip, sam, or both"
    sizes = model.get("qformer")
    if isinstance(sizes, Mapping):
        yield from _indivisible("model.qformer", sizes, "hidden_size", "num_heads")
    lora = mapping(mapping(model.get("llm")).get("lora"))
    if lora.get("target_modules") == []:
        yield "model.llm.lora.target_modules is empty; name layers, for example [q_proj, v_proj]"


def _no_checkpoint(key: str, location: str) -> Iterator[str]:
    if is_url(location):  # the model itself says what it misses
        return
    try:
        find_checkpoint(location)
    except WeightsError as error:
        yield f"{key}: {error}"


def _branch_problems(config: Mapping[str, Any], incomplete: Collection[str]) -> Iterator[str]:
    drawn = {name for name, ratio in training_ratios(config).items() if ratio > 0}
    told = any(part.startswith("datasets") for part in incomplete) or not drawn
    if config["run"].get("task") == STAGE_1_TASK and trains(config) and not told:
        yield from _recipe_problems(config, drawn)
    for name, branch in branches_of(config):
        yield from _encoder_problems(
            f"model.branches.{name}.encoder", mapping(branch.get("encoder"))
        )


def _recipe_problems(config: Mapping[str, Any], drawn: Collection[str]) -> Iterator[str]:
    """Finds branches of stage 1 that would not train."""
    unread = [name for name, data in config["datasets"].items() if not splits_of(data)]  # told
    domain_of = {name: mapping(data).get("domain") for name, data in config["datasets"].items()}
    recipe = {name: branch.get("train_on") for name, branch in branches_of(config)}
    if recipe and all(domains == [] for domains in recipe.values()):
        keys = " and ".join(f"model.branches.{name}.train_on" for name in recipe)
        yield f"{keys}: [], so nothing would train; name a domain ({', '.join(DOMAINS)})"
        return
    model = {**config["model"], "branches": dict(branches_of(config))}
    for name in untrained_branches(model):
        path = f"model.branches.{name}"
        init = model["branches"][name].get("init", SCRATCH)
        yield (
            f"{path}.train_on is [] and {path}.init is {init}, so the branch would be saved with "
            f"random weights; name a domain ({', '.join(DOMAINS)}), set {path}.init to a "
            f"checkpoint, or write {path}=null to drop it"
        )
    for name, domains in recipe.items():
        wanted = [domain for domain in names(domains) if domain in DOMAINS]
        # an empty list says so on purpose: the branch keeps its starting weights
        if not wanted or any(domain_of[dataset] in wanted for dataset in drawn):
            continue
        path = f"model.branches.{name}"
        if any(domain_of[dataset] in wanted for dataset in unread):
            continue
        idle = [dataset for dataset, domain in domain_of.items() if domain in wanted]
        lack = (
            f"none of its datasets ({', '.join(idle)}) has a train split and a ratio above 0"
            if idle
            else "no dataset of this run is of that domain"
        )
        cure = "change that" if idle else "add such a dataset"
        if name not in untrained_branches(_without_domains(model, name)):
            cure += f", or write {path}.train_on=[] to keep its starting weights"
        yield (
            f"{path}.train_on is [{', '.join(wanted)}], but {lack}, so the branch would not train; "
            f"{cure}, or write {path}=null to drop it"
        )


def _without_domains(model: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns the section with an empty ``train_on`` of one branch."""
    branches = model["branches"]
    return {**model, "branches": {**branches, name: {**branches[name], "train_on": []}}}


def _objective_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Finds a stage 1 that optimises nothing."""
    weights = config["model"].get("loss_weights")
    if not isinstance(weights, Mapping) or not trains(config):
        return
    if all(weights.get(name, 1.0) == 0 for name in OBJECTIVES):
        yield (
            "model.loss_weights are all 0, so nothing would train; set one of "
            f"{', '.join(OBJECTIVES)} above 0"
        )


def _negative_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Finds a stage 1 of one image at a time: negatives are the others of the global batch."""
    run, weights = config["run"], mapping(config["model"].get("loss_weights"))
    contrasts = [name for name in NEEDING_NEGATIVES if weights.get(name, 1.0) != 0]
    if run.get("task") != STAGE_1_TASK or not contrasts or world_size() > 1:
        return
    sizes = {"batch_size_eval": RunSettings.batch_size_eval} if evaluated_splits(run) else {}
    if trains(config):
        sizes = {"batch_size_train": RunSettings.batch_size_train, **sizes}
    for key, default in sizes.items():
        if run.get(key, default) == 1:
            without = " ".join(f"model.loss_weights.{name}=0" for name in contrasts)
            yield (
                f"run.{key} is 1, in one process, which leaves no other image as a negative: ITC "
                "would be 0 and ITM left out, and run.accum_grad_iters does not make up for it; "
                f"set run.{key}=2 or more, or {without}"
            )


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
        for part, processor in mapping(mapping(settings).get("vis_processor")).items():
            if not str(mapping(processor).get("name")).startswith(OWN_IMAGE_PROCESSORS):
                continue
            path = f"datasets.{dataset}.vis_processor.{part}"
            for branch_name, branch in branches_of(config):
                key = VIEW_KEYS.get(branch_name, "")
                side = mapping(branch.get("encoder")).get("image_size")
                if is_count(side) and processor.get(key) != side:
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
        f"model.branches.{name}.encoder.precision": mapping(branch.get("encoder"))
        for name, branch in branches_of(config)
    }
    places |= {f"model.{key}.precision": mapping(model.get(key)) for key in ("qformer", "llm")}
    for key, section in places.items():
        precision = section.get("precision", "fp32")
        problem = precision_problem(precision, device) if precision in PRECISIONS else None
        if problem:
            yield f"{key} is {precision}, but {problem}; set {key}=fp32"
    quantization = mapping(model.get("llm")).get("quantization")
    if quantization in QUANTIZATIONS and (problem := device_problem(quantization, device)):
        yield f"model.llm.quantization is {quantization}: {problem}"


def _underflow_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Finds a float16 LLM in a training without loss scaling."""
    run, precision = config["run"], mapping(config["model"].get("llm")).get("precision")
    scaled = run.get("amp") in ("fp16", True)
    if precision == "fp16" and not scaled and run.get("evaluate") is not True:
        yield (
            "model.llm.precision is fp16, but run.amp is not: the gradient passes through the LLM, "
            "and without loss scaling small values of it become 0; set model.llm.precision=bf16, "
            "or run.amp=fp16"
        )


def _division_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Finds a language model that cannot be divided among processes."""
    if config["run"].get("shard_llm") is not True:
        return
    model = config["model"]
    llm = mapping(model.get("llm"))
    if not llm:
        yield (
            f"run.shard_llm is true, but {model.get('arch')} has no language model; take the key "
            "out"
        )
    for key in ("lora", "quantization"):
        if llm.get(key) is not None:
            yield (
                f"run.shard_llm is true, but model.llm.{key} is {show(llm[key])}: only an LLM that "
                f"is frozen and not quantised can be divided; set model.llm.{key}=null, or "
                "run.shard_llm=false"
            )


def _indivisible(path: str, settings: Mapping[str, Any], whole: str, part: str) -> Iterator[str]:
    total, by = settings.get(whole), settings.get(part)
    if is_count(total) and is_count(by) and total % by:
        yield f"{path}.{whole} is {total}, which {path}.{part} ({by}) does not divide"
