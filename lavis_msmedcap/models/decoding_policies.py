"""How the next token is chosen: greedily, by drawing, or by beam search.

Each policy gets logits and answers with tokens; none of them knows the network.

Dimensions: B images, L prompt tokens, R rows (sequences under way), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional, Protocol

import torch
from torch import Tensor

from lavis_msmedcap.models.logits import (
    forbid_token,
    keep_nucleus,
    keep_top_k,
    penalize_repetition,
)

UNREACHABLE = -1e9  # score of all beams but the first before the first step: they are still equal

Step = tuple[Tensor, Optional[Tensor]]  # next token of each row (R,); rows to continue, or None


@dataclass(frozen=True)
class Rules:
    """What every policy does to scores.

    The arguments are those of :func:`lavis_msmedcap.models.decoding.generate`.
    """

    eos_token_id: int
    min_length: int
    repetition_penalty: float

    def apply(self, scores: Tensor, text: RunningText) -> Tensor:
        """Returns the scores (R, V) after repetition penalty and minimum length."""
        if self.repetition_penalty != 1.0:
            scores = penalize_repetition(scores, text.history, self.repetition_penalty)
        if text.shortest < self.min_length:
            scores = forbid_token(scores, self.eos_token_id, text.lengths < self.min_length)
        return scores


class RunningText:
    """Tokens and lengths of all rows, prompt included.

    Args:
        prompt_ids: int64 (B, L), padded on the left.
        prompt_mask: int64 (B, L).
        prompt_lengths: Number of real tokens of each prompt.
        copies: Rows per image.
        max_new_tokens: Room for this many tokens is kept.

    Attributes:
        history: int64 (R, L + max_new_tokens). Every place that holds no token of the row (padding,
            and what is not written yet) repeats the row's first token, so that the set of ids of a
            row is exactly the set of its tokens.
        lengths: int64 (R,) real tokens of each row.
        shortest: Smallest of ``lengths``.
        prompt_lengths: As given, one per image.
        written: Number of caption tokens so far, the same for all rows.
    """

    def __init__(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        prompt_lengths: Sequence[int],
        copies: int,
        max_new_tokens: int,
    ) -> None:
        width = prompt_ids.shape[1]
        first = prompt_ids.gather(1, prompt_mask.long().argmax(dim=1, keepdim=True))  # (B, 1)
        history = first.repeat(1, width + max_new_tokens)
        history[:, :width] = torch.where(prompt_mask.bool(), prompt_ids, first)
        self.history = history.repeat_interleave(copies, dim=0)
        self.lengths = prompt_mask.long().sum(dim=1).repeat_interleave(copies)
        self.prompt_lengths = list(prompt_lengths)
        self.shortest = min(prompt_lengths)
        self.written = 0
        self._width = width

    def append(self, tokens: Tensor, rows: Tensor | None = None) -> None:
        """Appends one token (R,) per row, after continuing from other rows if asked to."""
        if rows is not None:
            self.history = self.history.index_select(0, rows)
        self.history[:, self._width + self.written] = tokens
        self.lengths += 1
        self.shortest += 1
        self.written += 1

    def captions(self) -> list[list[int]]:
        """Returns the caption tokens of every row, whatever they are."""
        written: list[list[int]] = self.history[
            :, self._width : self._width + self.written
        ].tolist()
        return written


class Policy(Protocol):
    """Chooses tokens; the loop of ``decoding.generate`` drives it."""

    def advance(self, logits: Tensor) -> Step:
        """Chooses the next token of each row from its logits (R, V)."""

    def is_done(self) -> bool:
        """Tells whether every caption has ended."""

    def captions(self) -> list[list[int]]:
        """Returns the captions, those of one image together."""


@dataclass(frozen=True)
class Sampler:
    """Draws tokens; see :func:`lavis_msmedcap.models.decoding.generate` for the arguments."""

    top_p: float
    top_k: int
    temperature: float
    generator: torch.Generator | None

    def draw(self, scores: Tensor) -> Tensor:
        """Draws one token per row, int64 (R,), from scores (R, V)."""
        if self.temperature != 1.0:
            scores = scores / self.temperature
        if self.top_k:
            scores = keep_top_k(scores, self.top_k)
        if self.top_p < 1.0:
            scores = keep_nucleus(scores, self.top_p)
        return torch.multinomial(scores.softmax(dim=-1), 1, generator=self.generator).squeeze(1)


class SingleTrack:
    """Greedy search (no sampler) or sampling: every row goes its own way.

    Args:
        text: The rows.
        rules: Applied to the logits.
        pad_token_id: Written after the end of a caption.
        sampler: None takes the best token.
    """

    def __init__(
        self, text: RunningText, rules: Rules, pad_token_id: int, sampler: Sampler | None
    ) -> None:
        self._text = text
        self._rules = rules
        self._pad = pad_token_id
        self._sampler = sampler
        self._ended = torch.zeros_like(text.lengths, dtype=torch.bool)

    def advance(self, logits: Tensor) -> Step:
        """Takes or draws the next token of each row; ended rows are padded."""
        scores = self._rules.apply(logits, self._text)
        tokens = scores.argmax(dim=-1) if self._sampler is None else self._sampler.draw(scores)
        tokens = tokens.masked_fill(self._ended, self._pad)
        self._ended = self._ended | (tokens == self._rules.eos_token_id)
        self._text.append(tokens)
        return tokens, None

    def is_done(self) -> bool:
        """Tells whether every row has ended."""
        return bool(self._ended.all())

    def captions(self) -> list[list[int]]:
        """Returns the caption of each row, up to its end token."""
        eos = self._rules.eos_token_id
        rows = self._text.captions()
        return [row[: row.index(eos)] if eos in row else row for row in rows]


@dataclass
class Finished:
    """The best ended captions of one image, at most ``capacity`` of them.

    Attributes:
        capacity: Number of captions to keep.
        length_penalty: See :func:`lavis_msmedcap.models.decoding.generate`.
        ranked: (score, caption) pairs in the order of their arrival.
    """

    capacity: int
    length_penalty: float
    ranked: list[tuple[float, list[int]]] = field(default_factory=list)

    def score(self, log_probability: float, length: int) -> float:
        """Returns what captions are ranked by; ``length`` counts the prompt."""
        return float(log_probability / length**self.length_penalty)

    def add(self, caption: list[int], log_probability: float, length: int) -> None:
        """Adds a caption; when there is no room, only in place of a worse one."""
        score = self.score(log_probability, length)
        if len(self.ranked) == self.capacity:
            worst = min(range(self.capacity), key=lambda index: self.ranked[index][0])
            if score <= self.ranked[worst][0]:
                return
            del self.ranked[worst]
        self.ranked.append((score, caption))

    def cannot_improve(self, log_probability: float, length: int) -> bool:
        """Tells whether a running caption of this score cannot beat the kept ones any more."""
        if len(self.ranked) < self.capacity:
            return False
        return min(score for score, _ in self.ranked) >= self.score(log_probability, length)

    def best(self, count: int) -> list[list[int]]:
        """Returns the ``count`` best captions, best first, the later one first among equals."""
        ordered = sorted(self.ranked, key=lambda entry: entry[0])
        return [caption for _, caption in reversed(ordered[-count:])]


class BeamSearch:
    """Beam search over all images at once; an image that is done does not touch the others.

    As in transformers 4.26 with ``early_stopping=False``: of the ``2 * beams`` best continuations
    of an image those that end go to its finished captions if they are among the best ``beams``, the
    others run on; it is done when no running caption can still beat the worst finished one, and
    what runs at the end of the loop is ranked together with the finished.

    Args:
        text: The rows, ``beams`` per image.
        rules: Applied to the log-probabilities.
        beams: Rows per image.
        length_penalty: See :func:`lavis_msmedcap.models.decoding.generate`.
        count: Captions returned per image.
        pad_token_id: Fed to the rows of images that are done.
    """

    def __init__(
        self,
        text: RunningText,
        rules: Rules,
        beams: int,
        length_penalty: float,
        count: int,
        pad_token_id: int,
    ) -> None:
        images = len(text.prompt_lengths)
        self._text = text
        self._rules = rules
        self._beams = beams
        self._count = count
        self._pad = pad_token_id
        self._finished = [Finished(beams, length_penalty) for _ in range(images)]
        self._done = [False] * images
        self._running: list[list[list[int]]] = [[[] for _ in range(beams)] for _ in range(images)]
        self._scores = [[0.0] + [UNREACHABLE] * (beams - 1) for _ in range(images)]

    def advance(self, logits: Tensor) -> Step:
        """Continues every image with its best beams."""
        vocabulary = logits.shape[-1]
        scores = self._rules.apply(logits.log_softmax(dim=-1), self._text)
        sums = torch.tensor(self._scores, dtype=scores.dtype, device=scores.device)  # (B, beams)
        totals = (scores.view(*sums.shape, vocabulary) + sums[:, :, None]).flatten(1)
        best = totals.topk(2 * self._beams, dim=1)
        candidates = zip(best.values.tolist(), best.indices.tolist())

        rows, tokens = [], []
        for image, (values, places) in enumerate(candidates):
            chosen = self._choose(image, values, [divmod(place, vocabulary) for place in places])
            rows += [image * self._beams + beam for beam, _ in chosen]
            tokens += [token for _, token in chosen]
        next_tokens = torch.tensor(tokens, device=logits.device)
        unmoved = rows == list(range(len(rows)))
        next_rows = None if unmoved else torch.tensor(rows, device=logits.device)
        self._text.append(next_tokens, next_rows)
        return next_tokens, next_rows

    def _choose(
        self, image: int, values: list[float], places: list[tuple[int, int]]
    ) -> list[tuple[int, int]]:
        """Continues one image.

        Args:
            image: Index of the image.
            values: Summed log-probabilities of the best continuations, best first.
            places: (beam, token) of each.

        Returns:
            (beam, token) for each of the next beams.
        """
        if self._done[image]:
            return [(beam, self._pad) for beam in range(self._beams)]
        running, finished = self._running[image], self._finished[image]
        length = self._text.prompt_lengths[image] + self._text.written
        chosen: list[tuple[int, int]] = []
        scores: list[float] = []
        for rank, (value, (beam, token)) in enumerate(zip(values, places)):
            if token != self._rules.eos_token_id:
                chosen.append((beam, token))
                scores.append(value)
            elif rank < self._beams:
                finished.add(running[beam], value, length)
            if len(chosen) == self._beams:
                break
        self._running[image] = [[*running[beam], token] for beam, token in chosen]
        self._scores[image] = scores
        self._done[image] = finished.cannot_improve(values[0], length)
        return chosen

    def is_done(self) -> bool:
        """Tells whether every image is done."""
        return all(self._done)

    def captions(self) -> list[list[int]]:
        """Returns the best captions of each image, best first."""
        for image, done in enumerate(self._done):
            if done:
                continue
            length = self._text.prompt_lengths[image] + self._text.written
            for caption, score in zip(self._running[image], self._scores[image]):
                self._finished[image].add(caption, score, length)
        return [caption for image in self._finished for caption in image.best(self._count)]
