"""What a general phantom shows, and five ways to say so, as COCO has five captions per image."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from lavis_msmedcap.phantom.seeding import chance, pick, pick_weighted

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "crescent")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (208, 38, 38),
    "green": (44, 150, 62),
    "blue": (40, 84, 206),
    "yellow": (240, 212, 44),
    "orange": (240, 138, 28),
    "purple": (128, 52, 160),
    "pink": (244, 150, 186),
    "white": (244, 244, 240),
    "black": (24, 24, 26),
    "grey": (136, 138, 142),
}
TEXTURES = ("plain", "striped", "dotted")
RELATIONS = ("left of", "right of", "above", "below", "inside")
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}

_CAPTIONS_PER_IMAGE = 5
_INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_PREPOSITIONS = {
    "left of": ("to the left of", "on the left of"),
    "right of": ("to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "within"),
}
_HOLLOW_ENOUGH = ("circle", "square", "diamond", "ring")
_KINDS = (("single", 0.25), ("pair", 0.45), ("group", 0.3))


@dataclass(frozen=True)
class Thing:
    """One kind of object: its colour, its shape and whether it is drawn small or large."""

    colour: str
    shape: str
    size: str

    @property
    def named(self) -> str:
        """Returns the object with its article, for example ``an orange star``."""
        return with_article(f"{self.colour} {self.shape}")


@dataclass(frozen=True)
class GeneralFacts:
    """Everything that one general phantom shows.

    Attributes:
        kind: ``single``, ``pair`` or ``group``.
        background: Colour of the background.
        texture: One of `TEXTURES`.
        things: One object kind, or two for a pair.
        relation: How the first of a pair lies to the second; None otherwise.
        count: How many of the object there are.
    """

    kind: str
    background: str
    texture: str
    things: tuple[Thing, ...]
    relation: str | None
    count: int

    def as_dict(self) -> dict[str, object]:
        """Returns the facts as they stand in ``facts.jsonl``."""
        return asdict(self)


def with_article(words: str) -> str:
    """Puts ``a`` or ``an`` before a phrase."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def sample_general_facts(rng: np.random.Generator) -> GeneralFacts:
    """Draws the facts of one phantom; things and background differ in colour."""
    kind = pick_weighted(rng, _KINDS)
    colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))]
    background, texture = colours[0], pick(rng, TEXTURES)
    if kind != "pair":
        thing = Thing(colours[1], pick(rng, SHAPES), pick(rng, ("small", "large")))
        count = int(rng.integers(2, 6)) if kind == "group" else 1
        return GeneralFacts(kind, background, texture, (thing,), None, count)
    relation = pick(rng, RELATIONS)
    outer_shapes = _HOLLOW_ENOUGH if relation == "inside" else SHAPES
    first = Thing(colours[1], pick(rng, SHAPES), "small")
    second = Thing(
        colours[2], pick(rng, outer_shapes), "large" if relation == "inside" else "small"
    )
    return GeneralFacts(kind, background, texture, (first, second), relation, 1)


def general_captions(facts: GeneralFacts, rng: np.random.Generator) -> list[str]:
    """Writes five different captions of one image.

    Args:
        facts: What the image shows.
        rng: Decides which templates are used, and in which order.
    """
    if facts.kind == "pair":
        options = _pair(facts, rng)
    else:
        options = _single(facts) if facts.kind == "single" else _group(facts)
    order = rng.permutation(len(options))[:_CAPTIONS_PER_IMAGE]
    return [_finish(options[int(i)], rng) for i in order]


def _finish(text: str, rng: np.random.Generator) -> str:
    sentence = text[0].upper() + text[1:]
    if chance(rng, 0.1):
        return sentence
    return sentence + ("." if chance(rng, 0.95) else ". ")


def _ground(facts: GeneralFacts) -> str:
    return with_article(f"{facts.texture} {facts.background} background")


def _single(facts: GeneralFacts) -> list[str]:
    thing = facts.things[0]
    sized = f"a {thing.size} {thing.colour} {thing.shape}"
    return [
        f"{sized} on {_ground(facts)}",
        f"there is {thing.named} on {_ground(facts)}",
        f"a picture of {sized}",
        f"{_ground(facts)} with {thing.named} on it",
        f"{thing.named} in front of {_ground(facts)}",
        f"a single {thing.colour} {thing.shape} that is {thing.size}",
    ]


def _pair(facts: GeneralFacts, rng: np.random.Generator) -> list[str]:
    first, second = facts.things
    relation = facts.relation or ""
    how = pick(rng, _PREPOSITIONS[relation])
    if relation == "inside":
        reverse = f"{second.named} with {first.named} in it"
    else:
        reverse = f"{second.named} {pick(rng, _PREPOSITIONS[_INVERSE[relation]])} {first.named}"
    return [
        f"{first.named} {how} {second.named} on {_ground(facts)}",
        f"there is {first.named} {how} {second.named}",
        f"a picture of {first.named} {how} {second.named}",
        reverse,
        f"{first.named} and {second.named} on {_ground(facts)}",
        f"on {_ground(facts)} {first.named} is {how} {second.named}",
    ]


def _group(facts: GeneralFacts) -> list[str]:
    thing = facts.things[0]
    plural = thing.shape + ("es" if thing.shape == "cross" else "s")
    many = f"{NUMBERS[facts.count]} {thing.colour} {plural}"
    return [
        f"{many} on {_ground(facts)}",
        f"there are {many} on {_ground(facts)}",
        f"a picture of {many}",
        f"{_ground(facts)} with {many} on it",
        f"a group of {many}",
        f"{NUMBERS[facts.count]} {plural} that are {thing.colour}",
    ]
