"""What every metric receives and returns, so that metrics can be added without touching others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lavis_msmedcap.common.errors import MSMedCapError
from lavis_msmedcap.evaluation.metrics.java import TOKENIZER as PTB_JAVA
from lavis_msmedcap.evaluation.metrics.java import java_tokenize
from lavis_msmedcap.evaluation.metrics.tokenize import TOKENIZER as PTB_PY
from lavis_msmedcap.evaluation.metrics.tokenize import sanitize, tokenize

TOKENIZERS = (PTB_PY, PTB_JAVA)


@dataclass(frozen=True)
class Corpus:
    """One caption and its references for each of n images, raw and as tokens.

    Attributes:
        captions: n sanitised captions; what a learned metric reads.
        references: n non-empty tuples of sanitised references.
        caption_tokens: n strings of tokens joined by single spaces; what a counting metric reads.
        reference_tokens: n tuples of the same.
        tokenizer: Tag of the tokenizer, for the signature.
    """

    captions: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    caption_tokens: tuple[str, ...]
    reference_tokens: tuple[tuple[str, ...], ...]
    tokenizer: str

    def __len__(self) -> int:
        return len(self.captions)

    def subset(self, indices: Sequence[int]) -> Corpus:
        """Returns the images at the given places, in the given order."""
        return replace(
            self,
            captions=tuple(self.captions[i] for i in indices),
            references=tuple(self.references[i] for i in indices),
            caption_tokens=tuple(self.caption_tokens[i] for i in indices),
            reference_tokens=tuple(self.reference_tokens[i] for i in indices),
        )

    def with_captions_from(self, indices: Sequence[int]) -> Corpus:
        """Gives image ``i`` the caption of image ``indices[i]``; the references stay in place."""
        other = self.subset(indices)
        return replace(self, captions=other.captions, caption_tokens=other.caption_tokens)


@dataclass(frozen=True)
class MetricResult:
    """Scores of one metric over one corpus.

    Attributes:
        scores: Score name to value, for example ``BLEU-1`` to ``BLEU-4``.
        per_image: Score name to one value per image, where the metric is defined per image.
        note: What a reader must know about the values; empty if nothing.
    """

    scores: dict[str, float]
    per_image: dict[str, list[float]] = field(default_factory=dict)
    note: str = ""


Metric = Callable[[Corpus], MetricResult]


class MetricSkippedError(MSMedCapError):
    """A metric that cannot run here (no Java, no weights); the others are not affected."""


def build_corpus(
    captions: Sequence[str], references: Sequence[Sequence[str]], tokenizer: str = PTB_PY
) -> Corpus:
    """Sanitises and tokenizes captions and references.

    Args:
        captions: One caption per image; may be empty strings.
        references: At least one reference per image; may be empty strings.
        tokenizer: ``ptb-py`` (built in) or ``ptb-java`` (the original; needs Java).

    Raises:
        ValueError: If the tokenizer is unknown, the lengths differ or an image has no reference.
        JavaError: If Java was asked for and does not work.
    """
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"unknown tokenizer {tokenizer!r}; choose one of {', '.join(TOKENIZERS)}")
    if len(captions) != len(references):
        raise ValueError(f"{len(captions)} captions but references for {len(references)} images")
    clean_captions = tuple(sanitize(caption) for caption in captions)
    clean_references = tuple(tuple(sanitize(text) for text in group) for group in references)
    if not all(clean_references):
        raise ValueError("every image needs at least one reference")
    flat = [*clean_captions, *(text for group in clean_references for text in group)]
    tokens = iter(java_tokenize(flat) if tokenizer == PTB_JAVA else map(tokenize, flat))
    return Corpus(
        captions=clean_captions,
        references=clean_references,
        caption_tokens=tuple(next(tokens) for _ in clean_captions),
        reference_tokens=tuple(tuple(next(tokens) for _ in group) for group in clean_references),
        tokenizer=tokenizer,
    )
