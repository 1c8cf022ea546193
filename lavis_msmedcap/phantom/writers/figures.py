"""Medical figures one after the other, some of them of one article: what several formats hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lavis_msmedcap.phantom.medical.captions import choose_panel, roco_caption
from lavis_msmedcap.phantom.medical.facts import MedicalFacts, sample_facts
from lavis_msmedcap.phantom.medical.render import MedicalImage, render
from lavis_msmedcap.phantom.seeding import chance, rng_for

_FIGURES_PER_ARTICLE = 1.75
_PANEL_RATE = 0.03
_GREY_FILE_RATE = 0.3


@dataclass(frozen=True)
class Figure:
    """One drawn figure.

    Attributes:
        index: Its number, from 0.
        article: Number of its article.
        place: Its number in the article, from 1.
        facts: What it shows.
        drawn: Pixels and lesion mask.
        image: The pixels as grey or RGB image.
        caption: What it is said to show.
        meta: The random stream of everything else about it.
    """

    index: int
    article: int
    place: int
    facts: MedicalFacts
    drawn: MedicalImage
    image: Image.Image
    caption: str
    meta: np.random.Generator


def medical_figures(seed: int, stream: str, count: int, first_article: int) -> Iterator[Figure]:
    """Yields figures with captions in the manner of ROCO.

    Args:
        seed: The user's seed.
        stream: Name of the random streams, as in ``roco/train``.
        count: Number of figures.
        first_article: Number of the first article.
    """
    article, place = first_article, 0
    for index in range(count):
        meta = rng_for(seed, f"{stream}/meta", index)
        if place and chance(meta, 1.0 / _FIGURES_PER_ARTICLE):
            article, place = article + 1, 0
        place += 1
        panel = choose_panel(meta, _PANEL_RATE)
        facts = sample_facts(rng_for(seed, f"{stream}/facts", index))
        drawn = render(facts, rng_for(seed, f"{stream}/pixels", index), panel)
        caption = roco_caption(facts, rng_for(seed, f"{stream}/captions", index), panel)
        image = Image.fromarray(drawn.pixels)
        if not chance(meta, _GREY_FILE_RATE):
            image = image.convert("RGB")
        yield Figure(index, article, place, facts, drawn, image, caption, meta)
