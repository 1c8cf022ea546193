"""Puts branches together from plain settings (the ``model:`` section of a configuration)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import BertTokenizer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.models import lora, quantization
from lavis_msmedcap.models.branch import (
    PRECISION_CURE,
    TRAINABLE_PRECISIONS,
    QFormerBranch,
    QFormerSize,
)
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.gradient_checkpointing import checkpoint_layers
from lavis_msmedcap.models.qformer_init import initialize_branch, initialize_layer_norm
from lavis_msmedcap.models.weights import read_weights

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
    """Loads the Q-Former's WordPiece tokenizer from a local folder and adds [DEC].

    Raises:
        WeightsError: If the folder has no ``vocab.txt``.
    """
    path = resolve_path(folder)
    if not (path / "vocab.txt").is_file():
        raise WeightsError(f"Q-Former tokenizer: no vocab.txt in {path} (model.qformer.tokenizer)")
    tokenizer = BertTokenizer(str(path / "vocab.txt"), do_lower_case=True)
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


def qformer_size(settings: Mapping[str, Any], vocab_size: int) -> QFormerSize:
    """Reads the sizes of both Q-Formers from ``model.qformer``."""
    sizes = {name: settings[name] for name in QFORMER_SIZES if name in settings}
    return QFormerSize(vocab_size=vocab_size, **sizes)


def build_branch(
    name: str,
    settings: Mapping[str, Any],
    size: QFormerSize,
    embed_dim: int | None,
    llm_width: int | None = None,
) -> QFormerBranch:
    """Builds one branch with its frozen encoder and starting weights.

    Args:
        name: Branch name, for the log.
        settings: One entry of ``model.branches``.
        size: Sizes of the Q-Former.
        embed_dim: E, or None for stage 2.
        llm_width: D_lm, or None for stage 1.
    """
    encoder_settings = settings["encoder"]
    location = encoder_settings.get("weights")
    weights = None if location is None else read_weights(resolve_path(location))
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
    start = settings.get("init", "scratch")
    if start != "scratch":
        initialize = initialize_branch if embed_dim is not None else initialize_layer_norm
        report = initialize(branch, read_weights(resolve_path(start)), str(start))
        for line in report.lines():
            logger.info("branch %s: %s", name, line)
    return branch


def prepare_qformers(branches: Mapping[str, QFormerBranch], settings: Mapping[str, Any]) -> None:
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


def missing_weights(model: Mapping[str, Any], stage: int) -> list[str]:
    """Lists every weights file that a model configuration names and that is not there.

    Nothing is built or downloaded.

    Args:
        model: The ``model:`` section.
        stage: 1 or 2; stage 2 takes its Q-Formers from stage 1, and only the layer norm behind
            the CLIP branch's ViT from the starting weights.

    Returns:
        One sentence per missing file, with the key that names it and the cure.
    """
    wanted: dict[str, tuple[Any, str]] = {
        "model.qformer.tokenizer": (
            model.get("qformer", {}).get("tokenizer"),
            "the folder with vocab.txt of bert-base-uncased",
        )
    }
    for name, settings in (model.get("branches") or {}).items():
        if not settings:
            continue
        key = f"model.branches.{name}"
        what = "EVA-CLIP ViT-g (eva_vit_g.pth)" if name == "clip" else "a SAM checkpoint"
        wanted[f"{key}.encoder.weights"] = (settings["encoder"].get("weights"), what)
        if settings.get("init", "scratch") != "scratch" and (stage == 1 or name == "clip"):
            wanted[f"{key}.init"] = (
                settings["init"],
                "a BLIP-2 stage-1 checkpoint or BERT weights, or 'scratch'",
            )
    return [
        f"{key}: {resolve_path(value)} does not exist; put {what} there or set {key} to its path"
        for key, (value, what) in wanted.items()
        if value is not None and not resolve_path(value).exists()
    ]
