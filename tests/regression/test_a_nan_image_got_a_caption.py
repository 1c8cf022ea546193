"""Nan in an image came out as a caption of the shipped model; a penalty of 0 as garbage, too."""

from __future__ import annotations

import pytest
import torch
from lavis.models import load_model

from lavis_msmedcap.common.errors import ArgumentError, NotFiniteOutputError


def test_it_is_an_error_that_names_the_image() -> None:
    model = load_model("msmedcap", is_eval=True)
    image = torch.zeros(2, 3, 64, 64)
    assert len(model.generate({"image": image})) == 2
    with pytest.raises(ArgumentError, match="repetition_penalty is 0"):
        model.generate({"image": image}, repetition_penalty=0.0)
    image[1, 0, 5, 5] = float("nan")
    with pytest.raises(NotFiniteOutputError, match="image 1 of the batch"):
        model.generate({"image": image})
