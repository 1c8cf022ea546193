"""What a validation of stage 1 keeps of its images, to measure retrieval when all were seen.

The features come from the pass that computes the losses: no image is encoded a second time.

Dimensions: B batch, Q query tokens, T texts, E ITC width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lavis_msmedcap.common.distributed import gather_objects, get_rank, get_world_size
from lavis_msmedcap.models.base import FUSED
from lavis_msmedcap.models.recall import Recall, measure_recall

# texts -> branch -> float (T, E)
TextEncoder = Callable[[Sequence[str]], Mapping[str, Tensor]]


class Entry(NamedTuple):
    """One image as the ranks tell each other of it.

    Attributes:
        place: Rank and place among the images of that rank.
        dataset: Where it comes from.
        digest: Of its pixels; the same picture under two ids is one image.
        texts: Its captions.
        branches: Branches that have looked at it.
    """

    place: tuple[int, int]
    dataset: str
    digest: bytes
    texts: tuple[str, ...]
    branches: tuple[str, ...]


@dataclass
class Picture:
    """One image with the captions of all its entries.

    Attributes:
        place: Of the first entry: the rank that compares it.
        texts: Captions; a dictionary keeps their order.
    """

    place: tuple[int, int]
    texts: dict[str, None]


class RetrievalPool:
    """Collects the images of one rank."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._feats: list[dict[str, Tensor]] = []

    def add(self, samples: Mapping[str, Any], image_feats: Mapping[str, Tensor]) -> None:
        """Takes a batch.

        Args:
            samples: ``image``, ``dataset``, and ``text_inputs`` (all captions of each image) or
                ``text_input`` (one of each).
            image_feats: By branch float (B, Q, E), nan where an image took no part.
        """
        if not image_feats:  # a model that cannot retrieve
            return
        feats = {name: value.cpu() for name, value in image_feats.items()}
        texts = samples.get("text_inputs") or [[text] for text in samples["text_input"]]
        names = samples.get("dataset") or [""] * len(texts)
        for row, (image, dataset) in enumerate(zip(samples["image"].cpu(), names)):
            own = {
                name: value[row] for name, value in feats.items() if not value[row].isnan().any()
            }
            digest = hashlib.blake2b(image.contiguous().view(torch.uint8).numpy(), digest_size=16)
            place = (get_rank(), len(self._feats))
            # a caption of which cleaning leaves nothing finds no image
            captions = tuple(text for text in texts[row] if text.strip()) or tuple(texts[row][:1])
            self._entries.append(Entry(place, dataset, digest.digest(), captions, tuple(own)))
            self._feats.append(own)

    def recalls(self, encode: TextEncoder, device: torch.device) -> dict[str, Recall]:
        """Measures recall over the images of all ranks; every rank has to call it.

        A branch is measured on the images that it has looked at, all of them and, of several
        datasets, those of each; all branches together on what all have looked at.

        Args:
            encode: Encodes texts.
            device: Where images and texts are compared.

        Returns:
            Recall by branch, ``fused`` for several together, with the dataset in front where it is
            about one of several.
        """
        entries = gather_objects(self._entries)
        branches = sorted({name for entry in entries for name in entry.branches})
        texts = list(dict.fromkeys(text for entry in entries for text in entry.texts))
        text_feats = _encode_together(texts, encode) if branches else {}
        places = {text: place for place, text in enumerate(texts)}
        found = {}
        for group, members in _groups(entries):
            for name, parts in _choices(branches):
                pictures = _merge(e for e in members if set(parts) <= set(e.branches))
                if pictures:
                    own = [p for p in pictures if p.place[0] == get_rank()]
                    shown = list(dict.fromkeys(text for p in pictures for text in p.texts))
                    column = {text: number for number, text in enumerate(shown)}
                    chosen = torch.tensor([places[text] for text in shown])
                    found[f"{group}{name}"] = measure_recall(
                        [self._stacked(own, part) for part in parts],
                        [text_feats[part][chosen] for part in parts],
                        [[column[text] for text in p.texts] for p in own],
                        device,
                    )
        return found

    def _stacked(self, pictures: Sequence[Picture], branch: str) -> Tensor:
        rows = [self._feats[picture.place[1]][branch] for picture in pictures]
        return torch.stack(rows) if rows else torch.empty(0)


def _choices(branches: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns what is measured: each branch alone, and several together."""
    together = [(FUSED, list(branches))] if len(branches) > 1 else []
    return [*((name, [name]) for name in branches), *together]


def _groups(entries: Sequence[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Yields all images, then those of each dataset if there are several, with a name's head."""
    yield "", list(entries)
    datasets = list(dict.fromkeys(entry.dataset for entry in entries))
    if len(datasets) > 1:
        for dataset in datasets:
            yield f"{dataset}/", [entry for entry in entries if entry.dataset == dataset]


def _merge(entries: Iterator[Entry]) -> list[Picture]:
    """Makes one picture of the entries with the same pixels, with the captions of all."""
    pictures: dict[bytes, Picture] = {}
    for entry in entries:
        picture = pictures.setdefault(entry.digest, Picture(entry.place, {}))
        picture.texts.update(dict.fromkeys(entry.texts))
    return list(pictures.values())


def _encode_together(texts: Sequence[str], encode: TextEncoder) -> dict[str, Tensor]:
    """Encodes texts, each on one rank; returns all of them by branch, float (T, E), on the CPU."""
    rank, world = get_rank(), get_world_size()
    own = texts[rank::world]
    encoded = {name: feats.cpu() for name, feats in encode(own).items()} if own else {}
    parts = gather_objects([encoded])
    feats: dict[str, Tensor] = {}
    for name, first in parts[0].items():
        joined = first.new_empty(len(texts), first.shape[1])
        for number, part in enumerate(parts):
            if part:
                joined[number::world] = part[name]
        feats[name] = joined
    return feats
