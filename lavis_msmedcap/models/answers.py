"""Answering questions with the captioner: BLIP-2's ``predict_answers`` as functions.

Dimensions: K candidate answers, P prefix tokens, L prompt tokens, T answer tokens, D_lm LLM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lavis_msmedcap.models.llm_cache import CachedLlm, check_positions
from lavis_msmedcap.models.llm_text import Tokenizer, answer_inputs
from lavis_msmedcap.models.logits import refuse_nonfinite

PLACE = "{}"


def format_questions(questions: Sequence[str], prompt: str) -> list[str]:
    """Puts questions into a prompt such as ``"Question: {} Short answer:"``.

    Args:
        questions: B questions.
        prompt: Text with one ``{}``; empty leaves the questions as they are.

    Raises:
        ValueError: If the prompt has no place for the question, or braces that mean nothing.
    """
    if not prompt:
        return list(questions)
    if prompt.count(PLACE) != 1:
        raise ValueError(
            f"prompt is {prompt!r}; it needs exactly one {{}} for the question, as in "
            "'Question: {} Short answer:'"
        )
    before, after = prompt.split(PLACE)
    return [f"{before}{question}{after}" for question in questions]


@torch.no_grad()
def rank_answers(
    llm: Any,
    tokenizer: Tokenizer,
    prefix: Tensor,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    answers: Sequence[str],
    num_candidates: int,
) -> list[str]:
    """Chooses for each question the answer of a list that the LLM finds likeliest.

    As in LAVIS' VQA models: the ``num_candidates`` answers whose first token is likeliest are
    compared by the log-probability of all their tokens, the end of the answer included. Prefix and
    prompt pass through the LLM once per question.

    Args:
        llm: Causal language model in evaluation mode.
        tokenizer: Its tokenizer.
        prefix: float (B, P, D_lm) visual prefix.
        prompt_ids: int64 (B, L), padded on the left.
        prompt_mask: int64 (B, L).
        answers: K answers.
        num_candidates: At most this many are compared in full.

    Returns:
        B answers.

    Raises:
        ValueError: If there is no answer to choose from, none may be compared, or prefix, prompt
            and answer exceed the model's positions.
        NotFiniteOutputError: If the model gives nan or infinite logits for an image.
    """
    if not answers or num_candidates < 1:
        raise ValueError(
            f"{len(answers)} answers and num_ans_candidates {num_candidates}; ranking needs at "
            "least one of each"
        )
    ids, mask = (tensor.to(prefix.device) for tensor in answer_inputs(tokenizer, answers))  # (K, T)
    cure = "shorten the answers"
    check_positions(llm, prefix.shape[1], prompt_ids.shape[1], ids.shape[1], cure)
    count = min(num_candidates, len(answers))
    chosen = []
    for row in range(len(prefix)):
        part = slice(row, row + 1)
        cached = CachedLlm(llm, prefix[part], prompt_ids[part], prompt_mask[part], ids.shape[1])
        logits = cached.read_prompt(count)  # (count, V), all rows alike
        refuse_nonfinite(logits, count, first_image=row)
        first = logits[0].log_softmax(dim=-1)[ids[:, 0]]  # (K,)
        best = first.topk(count).indices
        scores = _log_probability(cached, logits, ids[best], mask[best])
        chosen.append(answers[int(best[scores.argmax()])])
    return chosen


def _log_probability(cached: CachedLlm, logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Sums the log-probabilities of answers (K, T) from the logits (K, V) of their first token."""
    total = logits.new_zeros(len(ids))
    for step in range(ids.shape[1]):
        if step:
            logits = cached.read_tokens(ids[:, step - 1])
        token = logits.log_softmax(dim=-1).gather(1, ids[:, step, None]).squeeze(1)
        total += token.masked_fill(mask[:, step] == 0, 0.0)
    return total
