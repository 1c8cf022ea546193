"""Puts branches together from plain settings (the ``model:`` section of a configuration)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from transformers import BertTokenizer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models import lora, quantization
from lavis_msmedcap.models.branch import (
    PRECISION_CURE,
    TRAINABLE_PRECISIONS,
    QFormerBranch,
    QFormerSize,
)
from lavis_msmedcap.models.checkpoint_names import kind_of
from lavis_msmedcap.models.checkpoints import of_authors_code
from lavis_msmedcap.models.encoders.build import WEIGHTS_FILES, build_encoder
from lavis_msmedcap.models.gradient_checkpointing import checkpoint_layers
from lavis_msmedcap.models.qformer_init import (
    fresh_names,
    initialize_branch,
    initialize_from_branch,
    initialize_layer_norm,
    vit_of_checkpoint,
)
from lavis_msmedcap.models.starting_points import StartingPoint, starting_points, unknown_word
from lavis_msmedcap.models.weight_files import Need, Part, locate
from lavis_msmedcap.models.weights import LoadReport, read_weights, read_weights_file

ENCODER_SETTINGS = ("name", "weights", "precision", "freeze_ln")  # all others are sizes
QFORMER_SIZES = (
    "hidden_size",
    "num_layers",
    "num_heads",
    "intermediate_size",
    "cross_attention_freq",
    "dropout",
    "initializer_range",
)

TOKENIZER_KEY = "model.qformer.tokenizer"
TEXT_TOKENIZER = Part(names=("vocab.txt",))

logger = logging.getLogger(__name__)


def active_branches(branches: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the branches that are not set to null.

    Raises:
        ValueError: If none is left.
    """
    active = {name: settings for name, settings in branches.items() if settings}
    if not active:
        raise ValueError("model.branches: every branch is null; keep clip, sam, or both")
    return active


def load_text_tokenizer(folder: str) -> BertTokenizer:
    """Loads the Q-Former's WordPiece tokenizer from a folder on this machine and adds [DEC].

    Raises:
        WeightsError: If the folder has no ``vocab.txt``.
    """
    path = locate(folder, TEXT_TOKENIZER)
    if not (path / "vocab.txt").is_file():
        raise WeightsError(f"Q-Former tokenizer: no vocab.txt in {path} (model.qformer.tokenizer)")
    tokenizer = BertTokenizer(str(path / "vocab.txt"), do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


def qformer_size(settings: Mapping[str, Any], vocab_size: int) -> QFormerSize:
    """Reads the sizes of both Q-Formers from ``model.qformer``."""
    sizes = {name: settings[name] for name in QFORMER_SIZES if name in settings}
    return QFormerSize(vocab_size=vocab_size, **sizes)


def build_branches(
    model: Mapping[str, Any],
    size: QFormerSize,
    embed_dim: int | None,
    llm_width: int | None = None,
) -> dict[str, QFormerBranch]:
    """Builds the branches of a model with their frozen encoders and starting weights.

    Args:
        model: The ``model:`` section.
        size: Sizes of the Q-Formers.
        embed_dim: E, or None for stage 2, where only layer norms need starting weights.
        llm_width: D_lm, or None for stage 1.

    Raises:
        WeightsError: If a file is missing or does not fit.
    """
    branches = {
        name: build_branch(name, settings, size, embed_dim, llm_width)
        for name, settings in active_branches(model["branches"]).items()
    }
    stage = 2 if embed_dim is None else 1
    fresh = {name: _trained_names(branch) for name, branch in branches.items()}
    for name, point in starting_points(model, stage).items():
        report = _start(name, point, branches, stage)
        for line in report.lines():
            logger.info("branch %s: %s", name, line)
        fresh[name] = set(fresh_names(report)) | (fresh[point.branch] if point.branch else set())
    if stage == 1 and any(fresh.values()) and not model.get("load_finetuned"):
        _warn_of_random(branches, fresh)
    if stage == 1:
        _warn_of_idle(model, fresh)
    _prepare_qformers(branches, model["qformer"])
    return branches


def _trained_names(branch: QFormerBranch) -> set[str]:
    """Returns the names of what stage 1 trains of a branch."""
    return {name for name, _ in branch.named_parameters() if not name.startswith("encoder.")}


def _warn_of_random(
    branches: Mapping[str, QFormerBranch], fresh: Mapping[str, Collection[str]]
) -> None:
    """Says which branches cannot be used before they are trained."""
    untrained = {name: names for name, names in fresh.items() if names}
    said = [
        f"{name} (all of it)"
        if len(names) == len(_trained_names(branches[name]))
        else f"{name} ({', '.join(_parts_of(names))})"
        for name, names in untrained.items()
    ]
    whole = [name for name in branches if name not in untrained]
    logger.warning(
        "RANDOM weights in branch %s, which stage 1 has to train. Until then features and matching "
        "scores of %s mean nothing. To use a trained model load its checkpoint: "
        "model.load_checkpoint(path), or model.load_finetuned=true with model.finetuned=path%s",
        " and branch ".join(said),
        f"{' and '.join(untrained)}, and fused ones," if len(branches) > 1 else "it",
        f"; or ask for branch={whole[0]!r} alone" if whole else "",
    )


def _warn_of_idle(model: Mapping[str, Any], fresh: Mapping[str, Collection[str]]) -> None:
    """Says which branches stay random, because they train on no domain."""
    for name, names in fresh.items():
        idle = model["branches"][name].get("train_on") == []
        if names and idle and not model.get("load_finetuned"):
            logger.warning(
                "branch %s will stay RANDOM in training: model.branches.%s.train_on is []; name a "
                "domain, or set model.branches.%s.init to a checkpoint of it",
                name,
                name,
                name,
            )


def _parts_of(names: Iterable[str]) -> list[str]:
    """Returns the parts of a branch that parameters belong to."""
    parts = ("cross-attention" if "crossattention" in n else n.split(".")[0] for n in names)
    return sorted(set(parts))


def _start(
    name: str, point: StartingPoint, branches: Mapping[str, QFormerBranch], stage: int
) -> LoadReport:
    """Fills one branch from its starting point, only its layer norm for stage 2."""
    branch = branches[name]
    if point.branch is not None:
        return initialize_from_branch(branch, branches[point.branch], f"branch {point.branch}")
    source = str(point.file)
    weights, notes = read_weights_file(locate(source))
    kind = kind_of(weights)
    is_bert = kind is None
    if point.key.startswith("model.pretrained.") and point.is_bert != is_bert:
        wanted = "a BERT (bert.*)" if point.is_bert else "a checkpoint of a Q-Former (Qformer.*)"
        found = ", ".join(sorted(weights)[:3])
        raise WeightsError(f"{point.key}: {source} has keys like {found}; expected {wanted}")
    if name == "sam" and of_authors_code(kind, notes) and branch.encoder.input != "authors":
        logger.warning(
            "branch sam: %s was trained by the authors' code, whose SAM input is not the picture; "
            "as a starting point it has to learn SAM's features anew, unless "
            "model.branches.sam.encoder.input=authors (see model_type: authors)",
            source,
        )
    if stage == 1:
        return initialize_branch(branch, weights, source, name)
    return initialize_layer_norm(branch, weights, source)


def build_branch(
    name: str,
    settings: Mapping[str, Any],
    size: QFormerSize,
    embed_dim: int | None,
    llm_width: int | None = None,
) -> QFormerBranch:
    """Builds one branch with its frozen encoder; the Q-Former has random weights.

    Args:
        name: Branch name, for the log.
        settings: One entry of ``model.branches``.
        size: Sizes of the Q-Former.
        embed_dim: E, or None for stage 2.
        llm_width: D_lm, or None for stage 1.
    """
    encoder_settings = settings["encoder"]
    location = encoder_settings.get("weights")
    file = None if location is None else read_weights(locate(location))
    weights = None if file is None else vit_of_checkpoint(file, str(location))
    if weights is None:
        logger.warning("branch %s: the frozen encoder has RANDOM weights (weights: null)", name)
    encoder = build_encoder(
        encoder_settings["name"],
        {key: v for key, v in encoder_settings.items() if key not in ENCODER_SETTINGS},
        weights,
        str(location),
        encoder_settings.get("precision", "fp32"),
        encoder_settings.get("freeze_ln", True),
    )
    branch = QFormerBranch(encoder, size, settings["num_query_token"], embed_dim, llm_width)
    if file is not None:  # a BLIP-2 checkpoint brings the layer norm too
        report = initialize_layer_norm(branch, file, str(location))
        if report.loaded:
            logger.info("branch %s: the layer norm behind the ViT too is of %s", name, location)
    return branch


def _prepare_qformers(branches: Mapping[str, QFormerBranch], settings: Mapping[str, Any]) -> None:
    """Applies what ``model.qformer`` says besides sizes: precision and gradient checkpointing."""
    precision = settings.get("precision", "fp32")
    if precision == "bf16":
        logger.warning(
            "model.qformer.precision is bf16: updates smaller than 1/256 of a weight are lost. "
            "run.amp=bf16 computes as fast and keeps fp32 weights"
        )
    for branch in branches.values():
        branch.set_precision(precision)
        if settings.get("gradient_checkpointing"):
            checkpoint_layers(branch.qformer.bert.encoder.layer)


def unmet_requirements(model: Mapping[str, Any]) -> list[str]:
    """Lists settings of a model that this installation cannot meet, each with its cure."""
    problems = []
    precision = model.get("qformer", {}).get("precision", "fp32")
    if precision not in TRAINABLE_PRECISIONS:
        problems.append(f"model.qformer.precision is {precision}; {PRECISION_CURE}")
    llm = model.get("llm") or {}
    if llm.get("quantization") and (problem := quantization.package_problem()):
        problems.append(f"model.llm.quantization is {llm['quantization']}: {problem}")
    if llm.get("lora") and (problem := lora.package_problem()):
        problems.append(f"model.llm.lora: {problem}")
    return problems


def weight_needs(model: Mapping[str, Any], stage: int) -> list[Need]:
    """Lists the weights that the branches of a model configuration name.

    Args:
        model: The ``model:`` section.
        stage: 1 or 2; stage 2 takes its Q-Formers from stage 1, and only the layer norm behind
            the CLIP branch's ViT from the starting weights.
    """
    tokenizer = model.get("qformer", {}).get("tokenizer")
    what = "the folder with vocab.txt of bert-base-uncased"
    needs = [] if tokenizer is None else [Need(TOKENIZER_KEY, tokenizer, what, TEXT_TOKENIZER)]
    for name, settings in (model.get("branches") or {}).items():
        if not settings:
            continue
        key = f"model.branches.{name}"
        weights = settings["encoder"].get("weights")
        if weights is not None:
            what = WEIGHTS_FILES.get(settings["encoder"]["name"], "its weights")
            needs.append(Need(f"{key}.encoder.weights", weights, what))
    for point in starting_points(model, stage).values():
        if point.file is not None and not unknown_word(point.file):
            what = "the weights of bert-base-uncased" if point.is_bert else "a BLIP-2 checkpoint"
            needs.append(Need(point.key, point.file, what))
    return needs
