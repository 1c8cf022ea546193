"""Puts branches together from plain settings (the ``model:`` section of a configuration)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import BertTokenizer

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.branch import QFormerBranch, QFormerSize
from lavis_msmedcap.models.encoders.build import build_encoder
from lavis_msmedcap.models.qformer_init import initialize_branch, initialize_layer_norm
from lavis_msmedcap.models.weight_files import Need, Part, locate
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
    weights = None if location is None else read_weights(locate(location))
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
        report = initialize(branch, read_weights(locate(start)), str(start))
        for line in report.lines():
            logger.info("branch %s: %s", name, line)
    return branch


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
        weights, init = settings["encoder"].get("weights"), settings.get("init", "scratch")
        if weights is not None:
            what = "EVA-CLIP ViT-g (eva_vit_g.pth)" if name == "clip" else "a SAM checkpoint"
            needs.append(Need(f"{key}.encoder.weights", weights, what))
        if init != "scratch" and (stage == 1 or name == "clip"):
            what = "a BLIP-2 stage-1 checkpoint or BERT weights, or 'scratch'"
            needs.append(Need(f"{key}.init", init, what))
    return needs
