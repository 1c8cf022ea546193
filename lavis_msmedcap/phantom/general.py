"""General pictures: coloured objects on coloured, textured backgrounds."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from lavis_msmedcap.phantom.canvas import Array, smooth_noise
from lavis_msmedcap.phantom.general_facts import COLOURS, GeneralFacts, Thing
from lavis_msmedcap.phantom.medical.render import image_size

_SUPERSAMPLING = 2
_SMALL, _LARGE = (0.13, 0.17), (0.28, 0.36)  # radius relative to the shorter side
_IN_PAIR = (0.14, 0.19)
_OUTER = (0.36, 0.42)
_INNER = (0.1, 0.13)
_IN_GROUP = (0.1, 0.12)


def render_general(facts: GeneralFacts, rng: np.random.Generator) -> Image.Image:
    """Draws one general phantom as an RGB image of 120 to 200 pixels a side.

    Args:
        facts: What to show.
        rng: Source of all variation that the facts do not settle.
    """
    height, width = image_size(rng)
    image = _background(facts, height, width, rng)
    shorter = min(height, width)
    for thing, x, y, radius in _layout(facts, height, width, rng):
        _paste(image, thing, (x, y), radius * shorter, rng)
    grain = rng.normal(0.0, 3.0, size=(height, width, 1)).astype(np.float32)
    pixels = np.asarray(image, dtype=np.float32) + grain
    return Image.fromarray(np.clip(pixels, 0.0, 255.0).astype(np.uint8))


def _shade(colour: str, rng: np.random.Generator) -> Array:
    """Returns a colour (3,) float32 a little off its name's centre."""
    base = np.asarray(COLOURS[colour], np.float32)
    return np.clip(base + rng.uniform(-12.0, 12.0, size=3).astype(np.float32), 0.0, 255.0)


def _background(
    facts: GeneralFacts, height: int, width: int, rng: np.random.Generator
) -> Image.Image:
    colour = _shade(facts.background, rng)
    x = np.arange(width, dtype=np.float32)[None, :]
    y = np.arange(height, dtype=np.float32)[:, None]
    pattern = np.float32(0.02) * smooth_noise(rng, height, width, 30.0)
    if facts.texture == "striped":
        angle = float(rng.uniform(0.0, np.pi))
        along = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
        pattern = pattern + np.float32(0.14) * np.sign(np.sin(along * np.float32(0.45)))
    elif facts.texture == "dotted":
        spots = np.sin(x * np.float32(0.5)) * np.sin(y * np.float32(0.5))
        pattern = pattern + np.float32(0.26) * np.clip(spots * 6.0 - 3.0, 0.0, 1.0)
    # dark grounds get lighter marks and light grounds darker ones
    lighter = 1.0 if float(colour.mean()) < 128.0 else -1.0
    pixels = colour + np.float32(255.0 * 0.7 * lighter) * pattern[:, :, None]
    return Image.fromarray(np.clip(pixels, 0.0, 255.0).astype(np.uint8))


def _layout(
    facts: GeneralFacts, height: int, width: int, rng: np.random.Generator
) -> list[tuple[Thing, float, float, float]]:
    """Returns (thing, x, y in pixels, radius relative to the shorter side), back to front."""

    def near(x: float, y: float) -> tuple[float, float]:
        dx, dy = rng.uniform(-0.025, 0.025, size=2)
        return (x + float(dx)) * width, (y + float(dy)) * height

    first = facts.things[0]
    if facts.kind == "single":
        spread = _LARGE if first.size == "large" else _SMALL
        return [(first, *near(0.5, 0.5), float(rng.uniform(*spread)))]
    if facts.kind == "group":
        cells = [(0.2, 0.25), (0.5, 0.25), (0.8, 0.25), (0.2, 0.74), (0.5, 0.74), (0.8, 0.74)]
        chosen = rng.permutation(len(cells))[: facts.count]
        radius = float(rng.uniform(*_IN_GROUP))
        return [(first, *near(*cells[int(i)]), radius) for i in chosen]
    second = facts.things[1]
    if facts.relation == "inside":
        x, y = near(0.5, 0.5)
        return [
            (second, x, y, float(rng.uniform(*_OUTER))),
            (first, x, y, float(rng.uniform(*_INNER))),
        ]
    places = {
        "left of": ((0.26, 0.5), (0.74, 0.5)),
        "right of": ((0.74, 0.5), (0.26, 0.5)),
        "above": ((0.5, 0.26), (0.5, 0.74)),
        "below": ((0.5, 0.74), (0.5, 0.26)),
    }[facts.relation or ""]
    return [
        (thing, *near(*place), float(rng.uniform(*_IN_PAIR)))
        for thing, place in zip((first, second), places)
    ]


def _paste(
    image: Image.Image,
    thing: Thing,
    centre: tuple[float, float],
    radius: float,
    rng: np.random.Generator,
) -> None:
    """Draws one object onto ``image``, anti-aliased."""
    half = int(np.ceil(radius)) + 2
    side = 2 * half
    mask = Image.new("L", (side * _SUPERSAMPLING, side * _SUPERSAMPLING), 0)
    angle = float(rng.uniform(-0.15, 0.15))
    _draw_shape(
        ImageDraw.Draw(mask), thing.shape, half * _SUPERSAMPLING, radius * _SUPERSAMPLING, angle
    )
    mask = mask.resize((side, side), Image.Resampling.BOX)
    colour = tuple(int(value) for value in _shade(thing.colour, rng))
    corner = (round(centre[0]) - half, round(centre[1]) - half)
    image.paste(Image.new("RGB", (side, side), colour), corner, mask)


def _draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, centre: float, radius: float, angle: float
) -> None:
    box = (centre - radius, centre - radius, centre + radius, centre + radius)
    if shape == "circle":
        draw.ellipse(box, fill=255)
    elif shape == "ring":
        draw.ellipse(box, fill=255)
        inner = 0.74 * radius
        draw.ellipse((centre - inner, centre - inner, centre + inner, centre + inner), fill=0)
    elif shape == "crescent":
        draw.ellipse(box, fill=255)
        shift = 0.45 * radius
        draw.ellipse(
            (box[0] + shift, box[1] - 0.1 * radius, box[2] + shift, box[3] - 0.1 * radius), fill=0
        )
    else:
        turned = [
            (
                centre + radius * (x * np.cos(angle) - y * np.sin(angle)),
                centre + radius * (x * np.sin(angle) + y * np.cos(angle)),
            )
            for x, y in _POLYGONS[shape]
        ]
        draw.polygon([(float(x), float(y)) for x, y in turned], fill=255)


def _star() -> list[tuple[float, float]]:
    corners = []
    for i in range(10):
        reach = 1.0 if i % 2 == 0 else 0.42
        turn = np.pi * i / 5.0
        corners.append((reach * float(np.sin(turn)), -reach * float(np.cos(turn))))
    return corners


# corner lists in units of the radius, y downwards
_POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "diamond": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
    "triangle": [(0.0, -0.95), (0.9, 0.75), (-0.9, 0.75)],
    "star": _star(),
    "cross": [
        (-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3),
        (0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3),
    ],
}  # fmt: skip
