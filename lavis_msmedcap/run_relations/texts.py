"""Whether prompt, captions and the visual prefix find room in the text models.

The tokenizer and ``config.json`` of the LLM are read where they are on this machine; where they
are not, that is a problem told elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.models.branch import QFormerSize
from lavis_msmedcap.models.llm import llm_config, load_tokenizer
from lavis_msmedcap.models.llm_build import LLM_TOKENIZER, LLM_WEIGHTS
from lavis_msmedcap.models.llm_text import prompt_inputs
from lavis_msmedcap.models.weight_files import locate
from lavis_msmedcap.run_relations.values import (
    branches_of,
    evaluated_splits,
    is_count,
    mapping,
    trains,
)
from lavis_msmedcap.tasks.medical_captioning import Decoding


def text_problems(config: Mapping[str, Any]) -> Iterator[str]:
    """Lists lengths that the text model of a stage has no room for.

    Args:
        config: All sections, of a model of this package.
    """
    model = config["model"]
    if model.get("arch") != "msmedcap":
        longest = model.get("max_txt_len")
        if is_count(longest) and longest > QFormerSize.max_position:
            yield (
                f"model.max_txt_len is {longest}, but a Q-Former has {QFormerSize.max_position} "
                "positions for text; lower it to that or less"
            )
        return
    prompt = _prompt_length(model)
    if prompt is None:
        return
    positions = _positions(model)
    queries = [branch.get("num_query_token") for _, branch in branches_of(config)]
    counts = [count for count in queries if is_count(count)]
    if positions is not None and len(counts) == len(queries):
        yield from _position_problems(config, positions, sum(counts), prompt)
    # a prompt without room in the LLM is told already
    if trains(config) and (positions is None or sum(counts) + prompt < positions):
        yield from _training_problems(model, prompt)


def _training_problems(model: Mapping[str, Any], prompt: int) -> Iterator[str]:
    longest = model.get("max_txt_len")
    if is_count(longest) and longest <= prompt:
        yield (
            f"model.max_txt_len is {longest}, but model.prompt alone has {prompt} tokens with that "
            "of the beginning, which leaves no room for a caption; raise model.max_txt_len or "
            "shorten model.prompt"
        )


def _position_problems(
    config: Mapping[str, Any], positions: int, prefix: int, prompt: int
) -> Iterator[str]:
    """Compares the longest input in training and decoding with the LLM's positions."""
    room = positions - prefix
    if room <= prompt:
        yield (
            f"model.prompt has {prompt} tokens and the branches' queries are {prefix}, but the LLM "
            f"(model.llm.weights) has {positions} positions for both and a caption; shorten "
            "model.prompt or lower model.branches.<name>.num_query_token"
        )
        return
    where = f"of the {positions} positions of the LLM (model.llm.weights)"
    longest = config["model"].get("max_txt_len")
    if trains(config) and is_count(longest) and longest > room:
        yield (
            f"model.max_txt_len is {longest}, but {where} the branches' {prefix} queries leave "
            f"{room}; lower it to at most {room}"
        )
    run = config["run"]
    new = run.get("max_len", Decoding.max_length)
    if evaluated_splits(run) and is_count(new) and new > room - prompt:
        yield (
            f"run.max_len is {new}, but {where} the branches' {prefix} queries and the {prompt} "
            f"tokens of model.prompt leave {room - prompt}; lower it to at most {room - prompt}"
        )


def _prompt_length(model: Mapping[str, Any]) -> int | None:
    """Counts the tokens of the prompt, ``</s>`` included; None without a tokenizer."""
    prompt, folder = model.get("prompt"), mapping(model.get("llm")).get("tokenizer")
    if not isinstance(prompt, str) or not isinstance(folder, str):
        return None
    try:
        tokenizer = load_tokenizer(locate(folder, LLM_TOKENIZER))
    except (MSMedCapError, OSError):
        return None
    return int(prompt_inputs(tokenizer, [prompt]).input_ids.shape[1])


def _positions(model: Mapping[str, Any]) -> int | None:
    """Reads how many positions the LLM has; None without its files, or without a limit."""
    weights = mapping(model.get("llm")).get("weights")
    if not isinstance(weights, str):
        return None
    try:
        config, _ = llm_config(locate(weights, LLM_WEIGHTS))
    except (MSMedCapError, OSError):
        return None
    positions = getattr(config, "max_position_embeddings", None)
    return positions if is_count(positions) else None
