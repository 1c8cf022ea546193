"""The text processor ``msmedcap_caption``."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor

from lavis_msmedcap.common.config_check import Key, Node, Nullable
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.datasets.caption_text import clean_caption


@registry.register_processor("msmedcap_caption")
class MSMedCapCaptionProcessor(BaseProcessor):
    """Prepares a caption for training: one clean line, optional prompt in front.

    Unlike LAVIS' ``blip_caption`` it keeps punctuation, so that "0.37 cm" stays a measurement and
    the model can learn to write what the references contain.

    Args:
        prompt: Put in front of every caption as it is.
        max_words: Later words are cut off; 0 for no limit.
        lower: Turn to lower case.
        strip_figure_prefix: Remove a leading "Figure 2.".
        strip_pointers: Remove "(arrow)" and the like.
        strip_panels: Remove panel letters at the start, "(A)".

    Attributes:
        counts: How many captions each step changed in this process ("captions" is their number).
    """

    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        "name": Key(str),
        "prompt": Nullable(Key(str)),
        "max_words": Key(int, minimum=0),
        "lower": Key(bool),
        "strip_figure_prefix": Key(bool),
        "strip_pointers": Key(bool),
        "strip_panels": Key(bool),
    }

    def __init__(
        self,
        prompt: str = "",
        max_words: int = 50,
        *,
        lower: bool = False,
        strip_figure_prefix: bool = True,
        strip_pointers: bool = True,
        strip_panels: bool = True,
    ) -> None:
        if max_words < 0:
            raise ConfigError([f"text_processor max_words is {max_words}; expected 0 or more"])
        self.prompt = prompt
        self.max_words = max_words
        self.lower = lower
        self.strip_figure_prefix = strip_figure_prefix
        self.strip_pointers = strip_pointers
        self.strip_panels = strip_panels
        self.counts: Counter[str] = Counter()

    def __call__(self, caption: str) -> str:
        """Returns the prompt and the cleaned caption."""
        self.counts["captions"] += 1
        text = clean_caption(
            caption,
            figure_prefix=self.strip_figure_prefix,
            panels=self.strip_panels,
            pointers=self.strip_pointers,
            counts=self.counts,
        )
        words = text.split(" ")
        if self.max_words and len(words) > self.max_words:
            text = " ".join(words[: self.max_words])
            self.counts["shortened"] += 1
        return self.prompt + (text.lower() if self.lower else text)

    @classmethod
    def from_config(cls, cfg: Any = None) -> MSMedCapCaptionProcessor:
        """Builds the processor from its configuration node; absent keys take the defaults."""
        cfg = {} if cfg is None else cfg
        prompt = cfg.get("prompt", "")
        return cls(
            prompt="" if prompt is None else prompt,
            max_words=cfg.get("max_words", 50),
            lower=cfg.get("lower", False),
            strip_figure_prefix=cfg.get("strip_figure_prefix", True),
            strip_pointers=cfg.get("strip_pointers", True),
            strip_panels=cfg.get("strip_panels", True),
        )
