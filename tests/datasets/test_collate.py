from __future__ import annotations

import pytest
import torch

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.collate import collate
from lavis_msmedcap.datasets.skipping import SkippedImage


def _sample(name, references, length=4):
    image = torch.arange(length, dtype=torch.uint8)
    return {"image": image, "image_id": name, "references": references, "image_path": f"/{name}"}


def test_tensors_are_stacked_and_the_rest_is_listed():
    batch = collate([_sample("a", ["x", "y"]), _sample("b", ["z"])])
    assert batch["image"].shape == (2, 4)
    assert batch["image"].dtype == torch.uint8
    assert batch["image_id"] == ["a", "b"]
    assert batch["references"] == [["x", "y"], ["z"]]


def test_samples_that_do_not_fit_are_named():
    with pytest.raises(DataError, match=r"/a and /b .*\['domain'\]"):
        collate([_sample("a", []), {**_sample("b", []), "domain": "medical"}])
    with pytest.raises(DataError, match=r"\(4,\) for /a but \(5,\) for /b.*vis_processor"):
        collate([_sample("a", []), _sample("b", [], length=5)])


def test_notes_of_skipped_images_are_gathered():
    a, b, c = (SkippedImage("roco", name, "empty") for name in "abc")
    samples = [_sample("x", []), {**_sample("y", []), "skipped": [a, b]}]
    assert collate(samples)["skipped"] == [a, b]
    assert collate([{**_sample("z", []), "skipped": [c]}, *samples])["skipped"] == [c, a, b]
    assert "skipped" not in collate(samples[:1])
