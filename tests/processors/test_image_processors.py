from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lavis.common.registry import registry
from lavis.processors.blip_processors import BlipImageEvalProcessor
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.common.config_check import check
from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.imaging.views import normalize_clip, unpack_views
from lavis_msmedcap.processors.image_processors import (
    MSMedCapImageEvalProcessor,
    MSMedCapImageTrainProcessor,
)

NAMES = ["msmedcap_image_train", "msmedcap_image_eval"]


def _picture(mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("name", NAMES)
def test_registered_and_built_from_a_configuration(name):
    cls = registry.get_processor_class(name)
    processor = cls.from_config(OmegaConf.create({"name": name, "image_size": 32}))
    assert (processor.image_size, processor.sam_image_size) == (32, 1024)
    assert cls.from_config().image_size == 224
    built = cls().build(image_size=32, sam_image_size=48)
    views = unpack_views(built(_picture()))
    assert views.clip.shape == (1, 3, 32, 32)
    assert views.sam.shape == (1, 3, 48, 48)
    assert views.valid_sizes.tolist() == [[32, 48]]


def test_training_views_are_the_evaluation_views():
    picture = _picture()
    train, evaluation = MSMedCapImageTrainProcessor(32, 48), MSMedCapImageEvalProcessor(32, 48)
    assert torch.equal(train(picture), train(picture))
    assert torch.equal(train(picture), evaluation(picture))


def test_clip_view_is_lavis_after_normalisation():
    packed = MSMedCapImageEvalProcessor(56, 64)(_picture())
    expected = BlipImageEvalProcessor(image_size=56)(_picture())
    off = (normalize_clip(unpack_views(packed).clip)[0] - expected).abs() * 255 * 0.27
    assert off.max() < 2  # grey levels
    assert off.mean() < 0.05


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_pictures_of_other_modes_are_taken(mode):
    picture = _picture("L").convert("I;16") if mode == "I;16" else _picture(mode)
    assert MSMedCapImageEvalProcessor(16, 16)(picture).dtype == torch.uint8


def test_sizes_must_be_positive():
    with pytest.raises(ConfigError) as caught:
        MSMedCapImageEvalProcessor(0, -1)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("name", NAMES)
def test_declared_keys_find_a_typo(name):
    keys = registry.get_processor_class(name).CONFIG_KEYS
    assert check({"name": name, "image_size": 224, "sam_image_size": 1024}, keys) == []
    (problem,) = check({"imagesize": 224}, keys)
    assert "image_size" in problem


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (np.zeros((8, 8, 3), np.uint8), "ndarray"),
        ("picture.png", "str"),
        (Path("picture.png"), "PosixPath"),
        (None, "NoneType"),
        (torch.zeros(3, 8, 8), "Tensor"),
    ],
)
def test_what_is_no_picture_is_told_with_the_cure(given, kind):
    message = rf"of type {kind}; expected a PIL image: .*Image\.open\(path\).*Image\.fromarray\(ar"
    with pytest.raises(DataError, match=message):
        MSMedCapImageEvalProcessor(16, 32)(given)


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "RGBA"])
@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels(mode, size):
    with pytest.raises(DataError, match=rf"the picture has {size[0]} x {size[1]} pixels"):
        MSMedCapImageEvalProcessor(16, 32)(Image.new(mode, size))
