"""What a checkpoint was trained with against the model that loads it.

Two things tell it: the ``model:`` section in the header of our files, and the shapes of the
tensors. Both become facts, configuration key to value, and so does the section that loads; only
keys that both sides have are compared. What may differ (``train_on``, ``offline``, precision,
dropout, checkpointing, quantisation, ``init``) is no fact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import PurePosixPath
from typing import Any

from lavis_msmedcap.models.branch import QFormerSize
from lavis_msmedcap.models.build import ENCODER_SETTINGS, QFORMER_SIZES
from lavis_msmedcap.models.checkpoint_names import AUTHORS, branches_of
from lavis_msmedcap.models.checkpoints import of_authors_code
from lavis_msmedcap.models.encoders.build import CLIP_ENCODERS
from lavis_msmedcap.models.encoders.sam import SamEncoder
from lavis_msmedcap.models.encoders.sam_sizes import SAM_SIZES, SamShape
from lavis_msmedcap.models.llm_files import WEIGHTS_NAMES
from lavis_msmedcap.models.weight_catalog import CATALOG

Facts = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]

# what training may change, and how fresh weights are drawn, is no fact
QFORMER_FACTS = [key for key in QFORMER_SIZES if key not in ("dropout", "initializer_range")]
SECTIONS = ("branches", "qformer", "llm", "pretrained")  # what is a mapping in a ``model:`` section
CROSS_KEY = "crossattention.self.key.weight"
LORA_FACTS = ("rank", "alpha", "target_modules")
# what the authors' code trains with, of which its checkpoints say nothing
AUTHORS_FACTS: Facts = {
    "model.branches.sam.encoder.tokens": "channel",
    "model.branches.sam.encoder.input": "authors",
}
AUTHORS_CURE = (
    " The SAM branch of the authors' checkpoints reads channels of a picture whose 8-bit values "
    "wrap around: model.branches.sam.encoder.tokens=channel and "
    "model.branches.sam.encoder.input=authors, as scale=authors (model_type: authors) has it. A "
    "file with their names that was trained otherwise gets its settings by msmedcap "
    "convert-checkpoint --to ours --cfg-path."
)
# an encoder's keys that settle others (None: all), so that one word is told instead of them
LEADING: dict[str, tuple[str, ...] | None] = {
    "name": None,
    "size": ("width", "depth", "num_heads", "global_attn_indexes"),
}


@dataclass(frozen=True)
class Difference:
    """A key whose value was another one in training.

    Attributes:
        key: Configuration key.
        theirs: The checkpoint's value.
        ours: The value of the configuration that loads it.
    """

    key: str
    theirs: Any
    ours: Any

    def told(self, source: str) -> str:
        """Says in one sentence what differs, with the cure."""
        theirs, ours = json.dumps(self.theirs), json.dumps(self.ours)
        return (
            f"{source} was trained with {self.key} {theirs}, but it is {ours} here; set "
            f"{self.key}={theirs}, or train again"
        )


def trained_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Returns the ``model:`` section of a checkpoint's header, empty if it has none to be read."""
    try:
        settings = json.loads(metadata.get("model", "{}"))
        sections = [settings.get(key) or {} for key in SECTIONS]
        branches = [branch or {} for branch in sections[0].values()]
        encoders = [branch.get("encoder") or {} for branch in branches]
        facts_of_settings(settings)
    except (ValueError, TypeError, AttributeError):  # damaged, or a note of other software
        return {}
    whole = all(isinstance(part, dict) for part in (*sections, *branches, *encoders))
    return settings if whole else {}


def trained_facts(kind: str, metadata: Mapping[str, str]) -> Facts:
    """Returns what a checkpoint was trained with, from what it says of itself or from its kind.

    Args:
        kind: ``ours``, ``blip2`` or ``authors``.
        metadata: Its header, or its notes.
    """
    if of_authors_code(kind, metadata):
        return dict(AUTHORS_FACTS)
    return facts_of_settings(trained_settings(metadata))


def facts_of_settings(model: Mapping[str, Any]) -> Facts:
    """Reads the facts off a ``model:`` section, complete or not; defaults are filled in."""
    facts: Facts = {f"model.{key}": model[key] for key in ("prompt", "embed_dim") if key in model}
    for name, branch in (model.get("branches") or {}).items():
        if branch:
            key = f"model.branches.{name}"
            facts[f"{key}.num_query_token"] = branch.get("num_query_token")
            encoder = encoder_facts(branch.get("encoder") or {})
            facts.update({f"{key}.encoder.{part}": value for part, value in encoder.items()})
    if "qformer" in model:
        for key in QFORMER_FACTS:
            facts[f"model.qformer.{key}"] = model["qformer"].get(key, getattr(QFormerSize, key))
    llm = model.get("llm")
    if llm:
        lora = llm.get("lora")
        facts["model.llm.lora"] = {key: lora.get(key) for key in LORA_FACTS} if lora else None
        facts["model.llm.weights"] = llm.get("weights")
    return facts


def encoder_facts(settings: Mapping[str, Any]) -> Facts:
    """Returns what an encoder computes, its class' defaults filled in, and its weights' name."""
    encoder: type = CLIP_ENCODERS.get(settings.get("name", ""), SamEncoder)
    facts = {name: part.default for name, part in signature(encoder).parameters.items()}
    facts.update({k: v for k, v in settings.items() if k not in (*ENCODER_SETTINGS, "size")})
    if encoder is SamEncoder:
        facts.update(SAM_SIZES.get(str(settings.get("size")), {}))
        facts["global_attn_indexes"] = list(facts["global_attn_indexes"])
        facts["size"] = SamShape(facts["width"], facts["depth"], facts["num_heads"]).name
    if facts.get("tokens") != "spatial_pooled":
        facts.pop("pool", None)
    return {**facts, "name": settings.get("name"), "weights": settings.get("weights")}


def token_width(encoder: Mapping[str, Any]) -> int:
    """Returns C, the width of the image tokens, from an encoder's facts."""
    if encoder.get("tokens") == "channel":
        return int((encoder["image_size"] // encoder["patch_size"]) ** 2)
    return int(encoder.get("out_chans", encoder["width"]))


def facts_of_shapes(shapes: Shapes) -> Facts:
    """Reads off the tensors of a checkpoint, under our names, what they tell of the model."""
    facts: Facts = {}
    for branch in branches_of(shapes):
        parts = {
            name.removeprefix(f"branches.{branch}."): shape
            for name, shape in shapes.items()
            if name.startswith(f"branches.{branch}.")
        }
        if len(parts.get("query_tokens", ())) == 3:  # (1, Q, D)
            facts[f"model.branches.{branch}.num_query_token"] = parts["query_tokens"][1]
            facts["model.qformer.hidden_size"] = parts["query_tokens"][2]
        facts.update(_qformer_facts(parts))
        if parts.get("vision_proj.weight"):  # (E, D)
            facts["model.embed_dim"] = parts["vision_proj.weight"][0]
    return facts


def _qformer_facts(parts: Shapes) -> Facts:
    head = "qformer.bert.encoder.layer."
    layers = {int(name[len(head) :].split(".")[0]) for name in parts if name.startswith(head)}
    crossed = sorted({i for i in layers if f"{head}{i}.{CROSS_KEY}" in parts})
    facts: Facts = {"model.qformer.num_layers": max(layers) + 1} if layers else {}
    gaps = [later - earlier for earlier, later in zip(crossed, crossed[1:])]
    if gaps:
        facts["model.qformer.cross_attention_freq"] = min(gaps)
    inner = parts.get(f"{head}0.intermediate_query.dense.weight")  # (I, D)
    return {**facts, "model.qformer.intermediate_size": inner[0]} if inner else facts


def image_width(shapes: Shapes, branch: str) -> int | None:
    """Returns C, the width of the image tokens that a branch of a checkpoint reads."""
    head = f"branches.{branch}."
    found = (s for name, s in shapes.items() if name.startswith(head) and name.endswith(CROSS_KEY))
    shape = next(found, ())  # (D, C)
    return shape[1] if len(shape) == 2 else None


def differences(theirs: Facts, ours: Facts) -> list[Difference]:
    """Compares the facts that both sides have."""
    found = {
        key: Difference(key, value, ours[key])
        for key, value in theirs.items()
        if key in ours and not _alike(key, value, ours[key])
    }
    for head in {key.rpartition(".")[0] for key in found if ".encoder." in key}:
        for last, settled in LEADING.items():
            _tell_once(found, head, last, settled)
    return list(found.values())


def _tell_once(
    found: dict[str, Difference], head: str, last: str, settled: tuple[str, ...] | None
) -> None:
    """Drops from an encoder's differences what a leading key settles, or a key without a value."""
    leading = found.get(f"{head}.{last}")
    if leading is None:
        return
    if leading.theirs is None or leading.ours is None:  # a size without a name: numbers are told
        del found[leading.key]
        return
    for key in [key for key in found if key.rpartition(".")[0] == head and key != leading.key]:
        if settled is None or key.rpartition(".")[2] in settled:
            del found[key]


def _alike(key: str, theirs: Any, ours: Any) -> bool:
    if key.endswith(".weights") and theirs and ours:
        return bool(_names_of(theirs) & _names_of(ours))
    return bool(theirs == ours)


def _names_of(reference: str) -> set[str]:
    """Returns the names under which weights are known, whatever folder they lie in."""
    if reference in CATALOG:
        return {reference, CATALOG[reference].path.rpartition("/")[2]}
    path = PurePosixPath(reference.partition("#")[0].replace("\\", "/"))
    return {path.name, path.parent.name} if path.name in WEIGHTS_NAMES else {path.name}


def told(found: list[Difference], kind: str, source: str) -> list[str]:
    """Says in one sentence each what contradicts a checkpoint of some kind, with the cure."""
    sentences = [difference.told(source) for difference in found]
    if kind == AUTHORS and any(difference.key in AUTHORS_FACTS for difference in found):
        sentences[-1] += f".{AUTHORS_CURE}"
    return sentences


def sort_out(
    found: list[Difference], model: Mapping[str, Any], same_arch: bool
) -> tuple[list[Difference], list[Difference]]:
    """Separates contradictions from differences that are only told.

    The CLIP view may grow between the stages, as in BLIP-2: the ViT's positions are interpolated.
    The authors train and caption with different prompts and view sizes, and ``model_type: authors``
    does as they do. Weights files may have been renamed: their values tell, see `frozen_marks`.

    Args:
        found: All differences.
        model: The ``model:`` section that loads.
        same_arch: Whether the checkpoint is of the same model, not of stage 1 for stage 2.

    Returns:
        Contradictions, and the others.
    """
    authors = model.get("model_type") == "authors"
    allowed = {"model.prompt"} if authors else set()
    if authors or not same_arch:
        allowed.add("model.branches.clip.encoder.image_size")
    told = [
        d for d in found if d.key in allowed or (d.key.endswith(".weights") and d.theirs and d.ours)
    ]
    return [d for d in found if d not in told], told
