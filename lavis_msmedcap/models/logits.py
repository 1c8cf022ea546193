"""What decoding does to the scores of the next token, as functions of (scores, state).

Each is the rule of the same name in Hugging Face's ``generate`` (version 4.26, which LAVIS 1.0.2
pins), except that a row's padding never counts.

Dimensions: R rows (sequences under way), T tokens so far, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lavis_msmedcap.common.errors import NotFiniteOutputError

NEVER = float("-inf")


def refuse_nonfinite(scores: Tensor, copies: int = 1, first_image: int = 0) -> None:
    """Refuses scores from which no token can be chosen.

    Args:
        scores: float (R, V).
        copies: Rows per image.
        first_image: Index of the image of the first row.

    Raises:
        NotFiniteOutputError: Naming the images with a row that holds nan or infinity, or minus
            infinity alone (for single tokens it is a way to forbid them).
    """
    good = scores.amax(dim=-1).isfinite()  # of a row with nan the largest is nan
    if not bool(good.all()):
        rows = (~good).nonzero().flatten().tolist()
        raise NotFiniteOutputError(sorted({first_image + row // copies for row in rows}))


def penalize_repetition(scores: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Makes tokens less likely that the sequence, prompt included, already holds.

    A negative score is multiplied by ``penalty``, a positive one divided; once per token, however
    often it occurred. Beam search applies it to log-probabilities, the other modes to logits.

    Args:
        scores: float (R, V).
        history: int64 (R, T) token ids; an id may stand there several times.
        penalty: > 1 discourages repetition.

    Returns:
        New scores, float (R, V).
    """
    seen = scores.gather(1, history)
    return scores.scatter(1, history, torch.where(seen < 0, seen * penalty, seen / penalty))


def forbid_token(scores: Tensor, token: int, rows: Tensor) -> Tensor:
    """Gives a token no chance in the chosen rows.

    Args:
        scores: float (R, V).
        token: Token id.
        rows: bool (R,).

    Returns:
        New scores, float (R, V).
    """
    forbidden = scores.clone()
    forbidden[:, token] = scores[:, token].masked_fill(rows, NEVER)
    return forbidden


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Keeps the ``k`` best tokens of each row, and those that tie with the last of them.

    Args:
        scores: float (R, V).
        k: At least 1; more than V keeps everything.

    Returns:
        Scores with -inf elsewhere, float (R, V).
    """
    last_kept = scores.topk(min(k, scores.shape[-1]), dim=-1).values[:, -1:]
    return scores.masked_fill(scores < last_kept, NEVER)


def keep_nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Keeps the smallest set of best tokens of each row whose probabilities reach ``top_p``.

    The best token is always kept.

    Args:
        scores: float (R, V).
        top_p: Probability mass, in (0, 1].

    Returns:
        Scores with -inf elsewhere, float (R, V).
    """
    # Summed from the least likely token upwards: small terms first, and the rounding of
    # Hugging Face's rule, so that the set is the same at the border.
    ascending, tokens = scores.sort(dim=-1)
    outside = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - top_p
    outside[:, -1] = False
    return scores.masked_fill(torch.zeros_like(outside).scatter(1, tokens, outside), NEVER)
