"""Medical phantoms in the format of the MedICaT release."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from lavis_msmedcap.phantom.medical.captions import choose_panel, medicat_caption
from lavis_msmedcap.phantom.medical.facts import MedicalFacts, sample_facts
from lavis_msmedcap.phantom.medical.render import render
from lavis_msmedcap.phantom.seeding import chance, pick, pick_weighted, rng_for
from lavis_msmedcap.phantom.writers.files import (
    Fact,
    OnImage,
    save_mask,
    save_png,
    to_json,
    write_lines,
)

DATASET = "medicat"
JSONL_NAME = "s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"

_FIGURES_PER_ARTICLE = 1.65
_PANEL_RATE = 0.1
_NO_SECOND_CAPTION_RATE = 0.1
_NO_REFERENCES_RATE = 0.27
_MODES = (("RGB", 0.6), ("L", 0.2), ("RGBA", 0.12), ("P", 0.08))
_LICENCES = ("cc-by", "cc-by", "cc-by-nc", None)
_STATUSES = ("gold", "hybrid", "green", "bronze")


def write_medicat(root: Path, seed: int, count: int, on_image: OnImage) -> list[Fact]:
    """Writes the release: flat PNG figures of mixed modes and one JSON object per figure.

    There is no official split; the facts' ``split`` is None and ``group_id`` is the ``pdf_hash``.

    Args:
        root: The phantom set's root; ``medicat/`` is made below it. ``masks/medicat`` must exist.
        seed: The user's seed.
        count: Number of figures.
        on_image: Called after each image.
    """
    release = root / "medicat" / "release"
    (release / "figures").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    facts_list: list[Fact] = []
    article, figure = 0, 0
    for index in range(count):
        meta = rng_for(seed, "medicat/meta", index)
        if figure and chance(meta, 1.0 / _FIGURES_PER_ARTICLE):
            article, figure = article + 1, 0
        figure += 1
        pdf_hash = hashlib.sha1(f"phantom/{seed}/{article}".encode()).hexdigest()
        panel = choose_panel(meta, _PANEL_RATE)
        facts = sample_facts(rng_for(seed, "medicat/facts", index))
        drawn = render(facts, rng_for(seed, "medicat/pixels", index), panel)
        words = rng_for(seed, "medicat/captions", index)
        caption = medicat_caption(facts, words, figure, panel)
        uri = f"{figure + 1}-Figure{figure}-1.png"
        path = release / "figures" / f"{pdf_hash}_{uri}"
        mode = pick_weighted(meta, _MODES)
        save_png(Image.fromarray(drawn.pixels).convert(mode), path)
        lines.append(to_json(_entry(pdf_hash, figure, uri, caption, facts, meta)))
        facts_list.append(
            {
                "image_id": path.stem,
                "dataset": DATASET,
                "split": None,
                "group_id": pdf_hash,
                **facts.as_dict(),
                "captions": [caption],
                "image": path.relative_to(root).as_posix(),
                "mask": save_mask(root, DATASET, path.stem, drawn.mask),
            }
        )
        on_image()
    write_lines(release / JSONL_NAME, lines)
    return facts_list


def _entry(
    pdf_hash: str,
    figure: int,
    uri: str,
    caption: str,
    facts: MedicalFacts,
    rng: np.random.Generator,
) -> Fact:
    second = None if chance(rng, _NO_SECOND_CAPTION_RATE) else caption
    references = None
    if not chance(rng, _NO_REFERENCES_RATE):
        references = [f"The {facts.organ.name} was examined (Fig. {figure})."]
    doi = f"10.5555/phantom.{pdf_hash[:8]}"
    return {
        "pdf_hash": pdf_hash,
        "fig_key": f"Figure{figure}",
        "fig_uri": uri,
        "s2_caption": caption,
        "s2orc_caption": second,
        "s2orc_references": references,
        "radiology": True,
        "scope": False,
        "predicted_type": "Medical images",
        "oa_info": {
            "doi": doi,
            "doi_url": f"https://phantom.invalid/{doi}",
            "oa": {
                "is_oa": True,
                "oa_status": pick(rng, _STATUSES),
                "license": pick(rng, _LICENCES),
            },
        },
    }
