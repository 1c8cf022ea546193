"""The lower part of a report: images with what they show and what the model said."""

from __future__ import annotations

from collections.abc import Sequence

from lavis_msmedcap.report.selection import RANKED_BY, Example, Selection
from lavis_msmedcap.report.text import escape, mark_caption
from lavis_msmedcap.report.thumbnails import make_thumbnail

_LEGEND = (
    "<mark>Marked</mark> words of a caption agree with a reference; "
    '<em class="other-side">a wavy line</em> means that the references name the other side.'
)


def gallery(selection: Selection, total: int) -> str:
    """Writes the chosen images as up to three grids.

    Args:
        selection: Images to show.
        total: Number of images that they were chosen from.
    """
    shown = len(selection.sample)
    whole = shown == total
    lead = "All images of the split." if whole else f"{shown} of {total} images, drawn at random."
    parts = [
        _grid("sample", "Held-out images", f"{lead} {_LEGEND}", selection.sample),
        _grid("best", f"Best by {RANKED_BY}", "", selection.best),
        _grid("worst", f"Worst by {RANKED_BY}", "", selection.worst),
    ]
    return "\n".join(part for part in parts if part)


def _grid(name: str, heading: str, lead: str, examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    cards = "\n".join(_card(example) for example in examples)
    return "\n".join(
        [
            f'<section aria-labelledby="{name}">',
            f'<h2 id="{name}">{heading}</h2>',
            f'<p class="small">{lead}</p>' if lead else "",
            f'<div class="grid">\n{cards}\n</div>',
            "</section>",
        ]
    )


def _card(example: Example) -> str:
    prediction = example.prediction
    references = list(prediction["references"])
    identity = f"{prediction['dataset']} · {prediction['image_id']}"
    badge = "" if example.score is None else f"<span>{RANKED_BY} {example.score:.2f}</span>"
    caption = mark_caption(prediction["caption"], references)
    return "\n".join(
        [
            '<article class="card">',
            picture(str(prediction.get("image") or ""), identity),
            f'<p class="meta"><span>{escape(identity)}</span>{badge}</p>',
            '<p class="label">Model</p>',
            f'<p class="caption" dir="auto">{caption}</p>'
            if caption.strip()
            else '<p class="caption none">no words</p>',
            f'<p class="label">{"Reference" if len(references) == 1 else "References"}</p>',
            *(f'<p class="reference" dir="auto">{escape(text)}</p>' for text in references),
            "</article>",
        ]
    )


def picture(path: str, identity: str) -> str:
    """Writes an image in a frame, or a remark where it cannot be read.

    Args:
        path: As for `make_thumbnail`.
        identity: What the image is called, for those who cannot see it.
    """
    thumbnail = make_thumbnail(path)
    if thumbnail is None:
        return '<div class="frame none">image not available</div>'
    return (
        f'<div class="frame"><img src="{thumbnail.uri}" width="{thumbnail.width}" '
        f'height="{thumbnail.height}" loading="lazy" decoding="async" '
        f'alt="Image {escape(identity)}"></div>'
    )
