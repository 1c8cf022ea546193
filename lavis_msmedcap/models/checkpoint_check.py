"""Checks the checkpoint that a configuration names before anything is built.

Only names, shapes and metadata of a safetensors file are read. PyTorch files are told when they are
loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavis_msmedcap.common.errors import WeightsError
from lavis_msmedcap.models.checkpoint_names import branches_of
from lavis_msmedcap.models.checkpoint_settings import (
    Difference,
    Shapes,
    differences,
    encoder_facts,
    facts_of_settings,
    facts_of_shapes,
    image_width,
    sort_out,
    token_width,
    told,
    trained_facts,
    trained_settings,
)
from lavis_msmedcap.models.checkpoints import Header, find_checkpoint, read_header
from lavis_msmedcap.models.llm_files import missing_llm_files, read_config
from lavis_msmedcap.models.weight_files import Part, find, is_url, locate

STAGE1_ARCH, CAPTIONER_ARCH = "blip2_dual_qformer", "msmedcap"
STAGE1_CURE = (
    "Run stage 1 first (python -m lavis.train --cfg-path projects/msmedcap/pretrain_mixed.yaml), "
    "or set model.stage1 to a checkpoint of it"
)
EMPTY_BRANCH = (
    "The file holds nothing of the {0} branch, which would stay untrained. Leave the branch out "
    "(model.branches.{0}=null), or train it: a file of one branch can be its starting point in "
    "stage 1 (model.branches.<name>.init)."
)
HALF_A_PREFIX = (
    "{0} is of a captioner whose visual prefix has a {1} branch too, which is null here; its parts "
    "were trained together. Keep model.branches.{1} as in the training; to train one branch on, "
    "write it to a file of its own with msmedcap convert-checkpoint --to ours --branch {2}"
)


def checkpoint_key(model: Mapping[str, Any]) -> str:
    """Returns which key names the checkpoint that a ``model:`` section loads, if any."""
    return "finetuned" if model.get("load_finetuned") else "stage1"


def checkpoint_problems(model: Mapping[str, Any]) -> list[str]:
    """Says what is wrong with the checkpoint that a ``model:`` section names, one sentence each."""
    key = checkpoint_key(model)
    location = model.get(key)
    if not location:
        return []
    try:
        if is_url(location) and find(location) is None:
            return []  # told with the other weights
    except WeightsError:  # an address that cannot be used: the same
        return []
    try:
        path = find_checkpoint(location)
    except WeightsError as error:
        return [f"model.{key}: {error}" + (f". {STAGE1_CURE}" if key == "stage1" else "")]
    try:
        header = read_header(path)
    except WeightsError as error:
        return [f"model.{key}: {error}"]
    found = [] if header is None else header_problems(header, path, model, key)
    return [f"model.{key}: {problem}" for problem in found]


def arch_problem(path: Path, found: str | None, arch: str | None, key: str) -> str | None:
    """Says that a checkpoint is of another model than a key is for; None if it is not.

    Args:
        path: Where it is.
        found: Model of the checkpoint.
        arch: Model that loads it.
        key: ``stage1`` or ``finetuned``.
    """
    if key == "stage1":
        cure = "Use model.finetuned for a captioner"
        wrong = f"{path} holds a {found}; expected a {STAGE1_ARCH}. {cure}"
        return wrong if found != STAGE1_ARCH else None
    if found == arch:
        return None
    cure = "choose a checkpoint of the same model"
    cure = "use it as model.stage1" if found == STAGE1_ARCH else cure
    return f"{path} holds a {found}, this model is a {arch}; {cure}"


def dropped_branch_problem(
    source: str,
    names: Iterable[str],
    metadata: Mapping[str, str],
    model: Mapping[str, Any],
) -> str | None:
    """Says that a captioner would run on a part of its visual prefix; None if it would not.

    The branches of stage 1 are trained each for itself, so that dropping one changes nothing.

    Args:
        source: Where the checkpoint is.
        names: Its tensors by our names.
        metadata: Its header.
        model: The ``model:`` section that loads it.
    """
    if not metadata.get("arch") == model.get("arch") == CAPTIONER_ARCH:
        return None
    trained = {*branches_of(names), *_branches(trained_settings(metadata))}
    kept = [name for name in _branches(model) if name in trained]
    dropped = sorted(trained - set(_branches(model)))
    if not dropped or not kept:  # a file of other branches alone is told elsewhere
        return None
    return HALF_A_PREFIX.format(source, dropped[0], kept[0])


def _branches(model: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the branches that are not null; none at all is told elsewhere."""
    return {name: branch for name, branch in (model.get("branches") or {}).items() if branch}


def header_problems(header: Header, path: Path, model: Mapping[str, Any], key: str) -> list[str]:
    """Says what of a checkpoint's header contradicts a ``model:`` section."""
    arch = header.metadata.get("arch")
    wrong = arch_problem(path, arch, model.get("arch"), key)
    if wrong is not None:
        return [wrong]
    absent = [b for b in _branches(model) if b not in branches_of(header.shapes)]
    problems = [f"{path}: {EMPTY_BRANCH.format(branch)}" for branch in absent]
    dropped = dropped_branch_problem(str(path), header.shapes, header.metadata, model)
    problems += [dropped] if dropped else []
    trained = trained_facts(header.kind, header.metadata)
    theirs = {**trained, **facts_of_shapes(header.shapes)}
    found, _ = sort_out(differences(theirs, facts_of_settings(model)), model, arch == model["arch"])
    problems += told(found, header.kind, str(path))
    return problems + width_problems(header.shapes, str(path), model, found)


def width_problems(
    shapes: Shapes, source: str, model: Mapping[str, Any], found: Sequence[Difference]
) -> list[str]:
    """Compares the widths that no single key gives: of image tokens, and of the LLM.

    Args:
        shapes: Shapes of a checkpoint by our names.
        source: Where it is, for messages.
        model: A ``model:`` section.
        found: Differences that are told already; an encoder among them is passed over.
    """
    settled = {d.key.split(".encoder.")[0] for d in found if ".encoder." in d.key}
    problems = []
    for name, branch in _branches(model).items():
        key = f"model.branches.{name}"
        have, want = image_width(shapes, name), token_width(encoder_facts(branch["encoder"]))
        if have not in (None, want) and key not in settled:
            problems.append(
                f"{source} was trained on image tokens of width {have}, but {key}.encoder gives "
                f"{want}; set {key}.encoder to the encoder of the training"
                + (
                    " (the authors' has tokens: channel and input: authors)"
                    if name == "sam"
                    else ""
                )
            )
    projection = next((s for n, s in shapes.items() if n.endswith(".llm_proj.weight")), None)
    width = _llm_width(model)
    if projection is not None and width not in (None, projection[0]):
        problems.append(
            f"{source} was trained in front of an LLM of width {projection[0]}, but that of "
            f"model.llm.weights has {width}; set model.llm.weights to the LLM of the training"
        )
    return problems


def _llm_width(model: Mapping[str, Any]) -> int | None:
    """Reads D_lm in ``config.json`` of the LLM, None where it does not stand there plainly."""
    llm = model.get("llm")
    try:
        config = read_config(locate(llm["weights"], Part(lacks=missing_llm_files))) if llm else {}
    except WeightsError:  # told with the other weights
        return None
    names = ("word_embed_proj_dim", "hidden_size", "n_embd", "d_model")
    found = next((config[name] for name in names if name in config), None)
    return found if isinstance(found, int) and "embedding_size" not in config else None
