"""The text processor ``msmedcap_caption``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar

from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor

from lavis_msmedcap.common.config_check import Key, Node, Nullable
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.datasets.caption_text import STEPS, clean_caption, join_blanks, strip_marks

_CLEANING = tuple(f"strip_{step}" for step in STEPS)
SWITCHES = ("unicode", *_CLEANING, "strip_punctuation", "lower")

# a preset says what each switch is that the configuration does not name
PRESETS: dict[str, dict[str, bool]] = {
    "minimal": {**dict.fromkeys(SWITCHES, False), "unicode": True},
    "medical": {**dict.fromkeys(SWITCHES, False), **dict.fromkeys(("unicode", *_CLEANING), True)},
    "blip": {**dict.fromkeys(SWITCHES, False), "strip_punctuation": True, "lower": True},
}
DEFAULT_PRESET = "medical"


@registry.register_processor("msmedcap_caption")
class MSMedCapCaptionProcessor(BaseProcessor):
    """Prepares a caption for training: cleaned, cut to a length, optional prompt in front.

    Unlike LAVIS' ``blip_caption`` it keeps punctuation by default, so that "0.37 cm" stays a
    measurement and the model can learn to write what the references contain.

    Args:
        prompt: Put in front of every caption as it is.
        max_words: Later words are cut off; 0 for no limit.
        preset: ``minimal`` only puts captions on one line, ``medical`` also removes what no
            picture shows, ``blip`` writes exactly what LAVIS' ``blip_caption`` writes.
        switches: Switches by name that differ from the preset:

            - ``unicode``: one line, composed characters, no odd or invisible blanks.
            - ``strip_figure_prefix``: remove a leading "Figure 2.".
            - ``strip_panels``: remove panel letters at the start, "(A)".
            - ``strip_pointers``: remove "(arrow)" and the like.
            - ``strip_citations``: remove "[12]".
            - ``strip_copyright``: remove "© 2010 …" and "Reproduced with permission …".
            - ``strip_punctuation``: put a space for each of ``. ! " ( ) * # : ; ~``.
            - ``lower``: turn to lower case.

    Attributes:
        switches: All switches by name, those of the preset included.

    Raises:
        ConfigError: If a preset or a switch is unknown, or ``max_words`` negative.
    """

    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        "name": Key(str),
        "prompt": Nullable(Key(str)),
        "max_words": Key(int, minimum=0),
        "preset": Key(str, choices=tuple(PRESETS)),
        **dict.fromkeys(SWITCHES, Key(bool)),
    }

    def __init__(
        self,
        prompt: str = "",
        max_words: int = 50,
        preset: str = DEFAULT_PRESET,
        **switches: bool,
    ) -> None:
        problems = []
        if max_words < 0:
            problems.append(f"text_processor max_words is {max_words}; expected 0 or more")
        if preset not in PRESETS:
            problems.append(
                f"text_processor preset is {preset!r}; expected one of {', '.join(PRESETS)}"
            )
        problems += [
            f"text_processor has no switch {name!r}; there are {', '.join(SWITCHES)}"
            for name in switches
            if name not in SWITCHES
        ]
        if problems:
            raise ConfigError(problems)
        self.prompt = prompt
        self.max_words = max_words
        self.switches = {**PRESETS[preset], **switches}
        self._steps = [step for step in STEPS if self.switches[f"strip_{step}"]]
        endings: dict[str, tuple[bool, Callable[[str], str]]] = {
            "lower": (self.switches["lower"], str.lower),
            "punctuation": (self.switches["strip_punctuation"], _without_marks),
            "cut": (max_words > 0, self._cut),
        }
        self._endings = {name: step for name, (wanted, step) in endings.items() if wanted}

    def __call__(self, caption: str) -> str:
        """Returns the prompt and the prepared caption."""
        return self.prepare(caption)

    def prepare(self, caption: str, counts: MutableMapping[str, int] | None = None) -> str:
        """Does what a call does, and counts.

        Args:
            caption: Raw caption.
            counts: Where to count the captions that each step changed: see `clean_caption`, and
                "punctuation", "lower", "cut" (at ``max_words``) and "empty" (nothing left).

        Returns:
            The prompt and the prepared caption.
        """
        text = clean_caption(caption, self._steps, unicode=self.switches["unicode"], counts=counts)
        for name, step in self._endings.items():
            after = step(text)
            if counts is not None and after != text:
                counts[name] = counts.get(name, 0) + 1
            text = after
        if counts is not None and not text:
            counts["empty"] = counts.get("empty", 0) + 1
        return self.prompt + text

    def _cut(self, text: str) -> str:
        return " ".join(text.split(" ")[: self.max_words])

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any] | None = None) -> MSMedCapCaptionProcessor:
        """Builds the processor from its configuration node; absent keys take the defaults."""
        cfg = {} if cfg is None else cfg
        return cls(
            prompt=cfg.get("prompt") or "",
            max_words=cfg.get("max_words", 50),
            preset=cfg.get("preset", DEFAULT_PRESET),
            **{name: cfg[name] for name in SWITCHES if name in cfg},
        )


def _without_marks(text: str) -> str:
    return join_blanks(strip_marks(text))
