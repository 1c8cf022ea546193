"""What the tensors of a branch are called in three kinds of checkpoint, as data.

    ours       branches.<clip|sam>.qformer.*, branches.<clip|sam>.query_tokens, ...
    blip2      Qformer.*, query_tokens, opt_proj.*, ...: LAVIS' BLIP-2, which has one branch
    authors    the authors' MSMedCap: the CLIP branch as in blip2, the SAM branch behind ``sam_``

The authors' stage 1 has the SAM branch alone: its Q-Former and queries are ``sam_Qformer.*`` and
``sam_query_tokens``, but its heads (``vision_proj``, ``text_proj``, ``itm_head``, ``temp``) have
BLIP-2's plain names, and files of an earlier version also have a plain ``query_tokens``. So in a
file without ``Qformer.*`` the plain names are the SAM branch's. Beside a CLIP branch the authors
have no names for the SAM heads; here they get the prefix too, which their loader passes over.

Only names are handled: values go through unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from torch import Tensor, equal

from lavis_msmedcap.common.errors import WeightsError

OURS, BLIP2, AUTHORS = "ours", "blip2", "authors"
BRANCHES = ("clip", "sam")
SAM_PREFIX = "sam_"  # of the authors' second branch

# part of a branch to its name in BLIP-2; a name that ends with a dot is a module's
PARTS = {
    "encoder.vit.": "visual_encoder.",
    "encoder.ln.": "ln_vision.",
    "qformer.": "Qformer.",
    "query_tokens": "query_tokens",
    "vision_proj.": "vision_proj.",
    "text_proj.": "text_proj.",
    "itm_head.": "itm_head.",
    "temp": "temp",
    "llm_proj.": "opt_proj.",
}
PARTS_OF_BLIP2 = {theirs: ours for ours, theirs in PARTS.items()}
QFORMER = PARTS["qformer."]

# second name of a tied tensor to the first, which is the one that our checkpoints hold
ALIASES = {
    "qformer.cls.predictions.decoder.weight": "qformer.bert.embeddings.word_embeddings.weight",
    "qformer.cls.predictions.decoder.bias": "qformer.cls.predictions.bias",
}

# what foreign files hold beside trained tensors, as patterns, with the reason to leave it
NOT_TRAINED = {
    r"^opt_model\.": "the frozen LLM has files of its own",
    r"^sam_model\.": "the frozen SAM encoder has a file of its own",
    r"(^|\.)encoder\.vit\.": "the frozen ViT has a file of its own",
    r"\.position_ids$": "a constant",
}

# parts of a stage-1 branch that captioning has no use for, as patterns
TEXT_HALF = "the text half of the Q-Former serves stage 1 only"
STAGE1_ONLY = {
    r"qformer\.cls\.": TEXT_HALF,
    r"qformer\.bert\.embeddings\.(word|position)_embeddings": TEXT_HALF,
    r"\.layer\.\d+\.(intermediate|output)\.": TEXT_HALF,
    r"\.(vision|text)_proj\.": "projections of ITC",
    r"\.itm_head\.": "head of ITM",
    r"\.temp$": "temperature of ITC",
}

ValueT = TypeVar("ValueT")


def kind_of(names: Collection[str]) -> str | None:
    """Tells by its names which kind of checkpoint a file is; None for none of the three."""
    if any(name.startswith("branches.") for name in names):
        return OURS
    if any(name.startswith((SAM_PREFIX + QFORMER, SAM_PREFIX + "query_tokens")) for name in names):
        return AUTHORS
    return BLIP2 if any(name.startswith(QFORMER) for name in names) else None


def arch_of(names: Iterable[str]) -> str | None:
    """Tells by our names which model a checkpoint is of; None if it is not plain."""
    names = list(names)
    if any(".llm_proj." in name for name in names):
        return "msmedcap"
    stage1 = (".vision_proj.", ".itm_head.", ".qformer.cls.")
    return "blip2_dual_qformer" if any(p in name for name in names for p in stage1) else None


def branches_of(names: Iterable[str]) -> list[str]:
    """Returns the branches that our names speak of, in the order of the visual prefix."""
    found = {name.split(".")[1] for name in names if name.startswith("branches.")}
    return [name for name in BRANCHES if name in found]


def to_ours(tensors: Mapping[str, ValueT], branch: str = "clip") -> dict[str, ValueT]:
    """Renames the tensors of any of the three kinds to ours; names of no branch stay.

    Args:
        tensors: Values by name.
        branch: Which branch the one of a BLIP-2 file is.

    Raises:
        WeightsError: If two names mean the same tensor.
    """
    kind = kind_of(tensors)
    if kind == OURS:
        return dict(tensors)
    alone = kind == AUTHORS and not any(name.startswith(QFORMER) for name in tensors)
    plain = "sam" if alone else "clip" if kind == AUTHORS else branch
    renamed: dict[str, ValueT] = {}
    for name, value in tensors.items():
        new = _name_in_ours(name, plain, kind == AUTHORS)
        if new in renamed:
            raise WeightsError(f"two names of the file mean {new}; one of them is {name}")
        renamed[new] = value
    return renamed


def from_ours(tensors: Mapping[str, ValueT], kind: str) -> dict[str, ValueT]:
    """Renames tensors under our names to those of another kind.

    Args:
        tensors: Values by our names, of one branch if ``kind`` is ``blip2``.
        kind: ``blip2`` or ``authors``.

    Raises:
        WeightsError: If a tensor has no name there, or the kind cannot hold both branches.
    """
    branches = branches_of(tensors)
    if kind == BLIP2 and len(branches) > 1:
        raise WeightsError(
            f"a BLIP-2 checkpoint holds one branch, this one has {' and '.join(branches)}; choose "
            "one with --branch clip or --branch sam"
        )
    renamed = {}
    for name, value in tensors.items():
        branch, _, part = name.removeprefix("branches.").partition(".")
        new = _replace(part, PARTS) if branch in branches else None
        if new is None or (branch == "sam" and part.startswith("encoder.")):
            raise WeightsError(f"{name} has no name in a checkpoint of kind {kind}")
        if kind == AUTHORS and branch == "sam":
            head = not new.startswith((QFORMER, "query_tokens", "opt_proj."))
            new = new if head and "clip" not in branches else SAM_PREFIX + new
        renamed[new] = value
    return renamed


def with_aliases(tensors: Mapping[str, ValueT]) -> dict[str, ValueT]:
    """Adds to tensors under our names the second names that LAVIS' files have."""
    complete = dict(tensors)
    for branch in branches_of(tensors):
        for alias, first in ALIASES.items():
            if f"branches.{branch}.{first}" in tensors:
                complete[f"branches.{branch}.{alias}"] = tensors[f"branches.{branch}.{first}"]
    return complete


def settle_aliases(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Takes the second names out of tensors under our names.

    A tensor that a file has under its second name only gets the first.

    Raises:
        WeightsError: If the two differ, so that a tied network could hold only one of them.
    """
    settled = dict(tensors)
    for branch in branches_of(tensors):
        for alias, first in ALIASES.items():
            value = settled.pop(f"branches.{branch}.{alias}", None)
            if value is None:
                continue
            kept = settled.setdefault(f"branches.{branch}.{first}", value)
            # a value that is not finite is told later, by its name
            if kept.shape != value.shape or not equal(kept.nan_to_num(), value.nan_to_num()):
                raise WeightsError(
                    f"{source}: {first} and {alias} of branch {branch} differ, but are one tensor "
                    "in a Q-Former; the file was written by a network that did not tie them"
                )
    return settled


def _name_in_ours(name: str, plain: str, authors: bool) -> str:
    """Returns our name of a foreign tensor, the name itself if it belongs to no branch."""
    prefixed = authors and name.startswith(SAM_PREFIX)
    part = _replace(name[len(SAM_PREFIX) :] if prefixed else name, PARTS_OF_BLIP2)
    return name if part is None else f"branches.{'sam' if prefixed else plain}.{part}"


def _replace(name: str, table: Mapping[str, str]) -> str | None:
    """Replaces a name, or the module at its head; None if the table does not know it."""
    head = re.match(r"(encoder\.)?[^.]+\.?", name)
    new = table.get(head.group()) if head else None
    return None if head is None or new is None else new + name[head.end() :]
