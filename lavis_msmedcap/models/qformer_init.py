"""Starting weights of a branch: a BLIP-2 checkpoint or a BERT, recognised by its key names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.branch import QFormerBranch, copy_text_ffn_to_query_ffn
from lavis_msmedcap.models.weights import ExpectedKeys, LoadReport, load_strict

BLIP2_PREFIXES = {
    "Qformer.": "qformer.",
    "visual_encoder.": "encoder.vit.",
    "ln_vision.": "encoder.ln.",
}


def branch_keys_from_blip2(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the keys of a BLIP-2 stage-1 checkpoint to those of a branch."""
    renamed = {}
    for key, value in weights.items():
        prefix = next((old for old in BLIP2_PREFIXES if key.startswith(old)), None)
        renamed[BLIP2_PREFIXES[prefix] + key[len(prefix) :] if prefix else key] = value
    return renamed


def initialize_branch(
    branch: QFormerBranch, weights: Mapping[str, Tensor], source: str
) -> LoadReport:
    """Fills a freshly built branch, text half included, from a published file.

    A BLIP-2 checkpoint (keys ``Qformer.*``) gives Q-Former, queries, projections and the layer norm
    behind the ViT. A BERT (keys ``bert.*``) gives the Q-Former's self-attention and text half; its
    cross-attention stays fresh and the queries' feed-forward is copied from the text's.

    Raises:
        WeightsError: If the file is neither, or a key cannot be explained.
    """
    if any(key.startswith("Qformer.") for key in weights):
        return _from_blip2(branch, weights, source)
    if any(key.startswith("bert.") for key in weights):
        return _from_bert(branch, weights, source)
    raise WeightsError(
        f"{source} is no starting point for a Q-Former: expected a BLIP-2 checkpoint (keys "
        f"'Qformer.*') or a BERT (keys 'bert.*'), found e.g. {sorted(weights)[:3]}"
    )


def initialize_layer_norm(
    branch: QFormerBranch, weights: Mapping[str, Tensor], source: str
) -> LoadReport:
    """Fills only the layer norm behind the ViT, which is frozen and so in no stage-1 checkpoint.

    Does nothing for a file without one (a BERT).
    """
    renamed = branch_keys_from_blip2(weights)
    targets = {
        name: value for name, value in branch.state_dict().items() if name.startswith("encoder.ln.")
    }
    if not any(name in renamed for name in targets):
        return LoadReport(source)
    norm = {name: value for name, value in renamed.items() if name.startswith("encoder.ln.")}
    return load_strict(targets, norm, source)


def _from_blip2(branch: QFormerBranch, weights: Mapping[str, Tensor], source: str) -> LoadReport:
    renamed = branch_keys_from_blip2(weights)
    targets = {
        name: value
        for name, value in branch.state_dict(keep_vars=False).items()
        if not name.startswith("encoder.vit.")
    }
    expected = ExpectedKeys(
        missing={"position_ids": "a constant"},
        unused={
            "encoder.vit.": "the frozen ViT has a file of its own",
            "position_ids": "a constant",
            "encoder.ln.": "this branch has no EVA-CLIP encoder",
        },
    )
    return load_strict(targets, renamed, source, expected)


def _from_bert(branch: QFormerBranch, weights: Mapping[str, Tensor], source: str) -> LoadReport:
    # the original TensorFlow conversion calls the layer norm's parameters gamma and beta
    modern = {
        "qformer." + key.replace(".gamma", ".weight").replace(".beta", ".bias"): value
        for key, value in weights.items()
    }
    targets = {
        name: value for name, value in branch.state_dict().items() if name.startswith("qformer.")
    }
    for name, value in modern.items():
        modern[name] = _add_decoder_token(value, targets.get(name))
    expected = ExpectedKeys(
        missing={
            "crossattention": "fresh: BERT has no cross-attention",
            "_query": "copied from the text feed-forward",
            "position_ids": "a constant",
            "predictions.decoder": "tied to the word embeddings",
        },
        unused={
            "pooler": "BERT's pooler is not part of a Q-Former",
            "seq_relationship": "BERT's next-sentence head is not part of a Q-Former",
            "token_type_embeddings": "a Q-Former has one segment",
            "position_ids": "a constant",
            "predictions.decoder": "tied to the word embeddings",
        },
    )
    report = load_strict(targets, modern, source, expected)
    copy_text_ffn_to_query_ffn(branch.qformer)
    return report


def _add_decoder_token(value: Tensor, target: Tensor | None) -> Tensor:
    """Appends the row of [DEC], which BERT does not know, as the mean of the others."""
    if target is None or value.shape[:1] == target.shape[:1]:
        return value
    if value.shape[0] + 1 != target.shape[0] or value.shape[1:] != target.shape[1:]:
        return value
    return torch.cat([value, value.mean(dim=0, keepdim=True)])
