"""Starting weights of a branch: a checkpoint, a BERT, or another branch.

What a file is shows in its key names: a Q-Former's checkpoint (ours, BLIP-2's, the authors', see
`checkpoint_names`), or a BERT (``bert.*``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.branch import QFormerBranch, copy_text_ffn_to_query_ffn
from lavis_msmedcap.models.checkpoint_names import (
    NOT_TRAINED,
    OURS,
    PARTS,
    branches_of,
    kind_of,
    settle_aliases,
    to_ours,
)
from lavis_msmedcap.models.weights import ExpectedKeys, LoadReport, load_strict

logger = logging.getLogger(__name__)

# a branch's own constants and second names, which no load needs to fill
NO_TARGETS = r"^encoder\.vit\.|\.position_ids$|\.cls\.predictions\.decoder\."
FRESH = "fresh: "  # how the reasons begin that leave random weights
# what depends on the encoder, and on the number of queries, of the branch it was trained in
CROSS_ATTENTION = r"\.crossattention\.self\.(key|value)\.weight$"
OTHER_WIDTH = f"{FRESH}it reads image tokens of another width"
OTHER_COUNT = f"{FRESH}the branches have different numbers of queries"
NORM_STAYS = "the layer norm stays as the encoder's own weights left it"


def fresh_names(report: LoadReport) -> list[str]:
    """Returns the parameters that a starting point left as they were drawn."""
    reasons = report.expected_missing.items()
    return [name for why, names in reasons if why.startswith(FRESH) for name in names]


def initialize_branch(
    branch: QFormerBranch, weights: Mapping[str, Tensor], source: str, name: str = "clip"
) -> LoadReport:
    """Fills a freshly built branch, text half included, from a file.

    A checkpoint gives Q-Former, queries and projections, and the layer norm behind the ViT where it
    has one (those of other codes must). Of a checkpoint with two branches the one of the same name
    is taken. From the other branch, cross-attention to tokens of another width stays fresh. A BERT
    gives the Q-Former's self-attention and text half; its cross-attention stays fresh and the
    queries' feed-forward is copied from the text's.

    Args:
        branch: Branch to fill.
        weights: Tensors of the file.
        source: Named in messages.
        name: Name of the branch.

    Raises:
        WeightsError: If the file is neither, or a key cannot be explained.
    """
    if kind_of(weights) is not None:
        return _from_checkpoint(branch, weights, source, name)
    if any(key.startswith("bert.") for key in weights):
        return _from_bert(branch, weights, source)
    raise WeightsError(
        f"{source} is no starting point for a Q-Former: expected a BLIP-2 checkpoint (keys "
        "'Qformer.*'), one of the authors' code (keys 'sam_Qformer.*') or of this package (keys "
        f"'branches.*'), or a BERT (keys 'bert.*'); found e.g. {sorted(weights)[:3]}"
    )


def initialize_from_branch(branch: QFormerBranch, other: QFormerBranch, source: str) -> LoadReport:
    """Copies from another branch everything but its encoder; what does not fit stays fresh.

    Raises:
        WeightsError: If anything but cross-attention and queries does not fit.
    """
    tensors = {
        key: value
        for key, value in other.state_dict().items()
        if not key.startswith("encoder.") and not re.search(NO_TARGETS, key)
    }
    return _fill(branch, tensors, source, ExpectedKeys(), same_encoder=False)


def initialize_layer_norm(
    branch: QFormerBranch, weights: Mapping[str, Tensor], source: str
) -> LoadReport:
    """Fills only the layer norm behind the ViT, which is frozen and so in no stage-1 checkpoint.

    Does nothing for a file without one (a BERT, a checkpoint of ours).
    """
    prefix = "branches.clip.encoder.ln."
    norm = {
        "encoder.ln." + key[len(prefix) :]: value
        for key, value in to_ours(weights).items()
        if key.startswith(prefix)
    }
    targets = {k: v for k, v in branch.state_dict().items() if k.startswith("encoder.ln.")}
    if not norm or not targets:
        return LoadReport(source)
    return load_strict(targets, norm, source)


def vit_of_checkpoint(weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Takes the ViT, under its own names, out of a checkpoint that carries it along.

    Any other file goes through as it is.

    Raises:
        WeightsError: If it is a checkpoint of a Q-Former without a ViT.
    """
    prefix = PARTS["encoder.vit."]
    vit = {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
    if not vit and kind_of(weights) is None:
        return dict(weights)
    if not vit:
        raise WeightsError(
            f"{source} holds a Q-Former, but no ViT (keys '{prefix}*'): LAVIS leaves a frozen one "
            "out. Name the file of the encoder itself, eva_vit_g.pth for example"
        )
    logger.info(
        "%s is a BLIP-2 checkpoint: %d tensors are its ViT, %d others are not the encoder's",
        source,
        len(vit),
        len(weights) - len(vit),
    )
    return vit


def _from_checkpoint(
    branch: QFormerBranch, weights: Mapping[str, Tensor], source: str, name: str
) -> LoadReport:
    renamed = settle_aliases(to_ours(weights), source)
    found = branches_of(renamed)
    chosen = name if name in found else found[0]
    prefix = f"branches.{chosen}."
    tensors = {
        key[len(prefix) :] if key.startswith(prefix) else key: v for key, v in renamed.items()
    }
    unused = {
        **NOT_TRAINED,
        r"^branches\.": f"of the other branch, and this is {name}",
        r"^llm_proj\.": "the linear layer into the LLM is of stage 2",
    }
    missing = {}
    if kind_of(weights) == OURS:
        missing[r"^encoder\.ln\."] = NORM_STAYS
    expected = ExpectedKeys(missing, unused)
    return _fill(branch, tensors, f"{source} (branch {chosen})", expected, chosen == name)


def _fill(
    branch: QFormerBranch,
    tensors: Mapping[str, Tensor],
    source: str,
    expected: ExpectedKeys,
    same_encoder: bool,
) -> LoadReport:
    """Loads tensors under a branch's names.

    Args:
        branch: Branch to fill.
        tensors: Tensors by name.
        source: Named in messages.
        expected: Keys that may be missing or unused.
        same_encoder: Whether they were trained behind the same kind of encoder; otherwise what
            depends on the encoder's width or on the number of queries may stay fresh.
    """
    targets = {k: v for k, v in branch.state_dict().items() if not re.search(NO_TARGETS, k)}
    if same_encoder:
        return load_strict(targets, tensors, source, expected)
    missing, unused = dict(expected.missing), dict(expected.unused)
    missing[r"^encoder\.ln\."] = NORM_STAYS
    unused[r"^encoder\.ln\."] = "it belongs to the other branch's encoder"
    fitting = {}
    for key, value in tensors.items():
        odd = key in targets and value.shape != targets[key].shape
        reason = OTHER_WIDTH if re.search(CROSS_ATTENTION, key) else OTHER_COUNT
        if odd and (reason == OTHER_WIDTH or key == "query_tokens"):
            missing[f"^{re.escape(key)}$"] = reason
        else:
            fitting[key] = value
    return load_strict(targets, fitting, source, ExpectedKeys(missing, unused))


def _from_bert(branch: QFormerBranch, weights: Mapping[str, Tensor], source: str) -> LoadReport:
    # the original TensorFlow conversion calls the layer norm's parameters gamma and beta
    modern = {
        "qformer." + key.replace(".gamma", ".weight").replace(".beta", ".bias"): value
        for key, value in weights.items()
    }
    targets = {k: v for k, v in branch.state_dict().items() if not re.search(NO_TARGETS, k)}
    for name, value in modern.items():
        modern[name] = _add_decoder_token(value, targets.get(name))
    expected = ExpectedKeys(
        missing={
            "crossattention": f"{FRESH}BERT has no cross-attention",
            "_query": "copied from the text feed-forward",
            r"^encoder\.ln\.": NORM_STAYS,
            "^query_tokens$": f"{FRESH}BERT has no queries",
            r"^((vision|text)_proj\.|itm_head\.|temp$)": f"{FRESH}BERT has no heads of ITC and ITM",
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
    if target is None or value.shape[:1] == target.shape[:1] or not value.is_floating_point():
        return value
    if value.shape[0] + 1 != target.shape[0] or value.shape[1:] != target.shape[1:]:
        return value
    return torch.cat([value, value.mean(dim=0, keepdim=True)])
