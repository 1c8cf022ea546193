from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.imaging.augment import Augmentation, augment_picture, sample_rng

NOTHING = {"rotation": 0, "crop": 1, "brightness": 0, "contrast": 0, "gamma": 0}


def _picture(width=60, height=40):
    grey = np.add.outer(np.linspace(40, 120, height), np.linspace(0, 90, width))
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _only(**settings):
    return Augmentation(**{**NOTHING, **settings})


def test_the_same_sample_in_the_same_epoch_is_the_same_picture():
    picture, settings = _picture(), Augmentation()
    first, again, later, other = (
        augment_picture(picture, settings, sample_rng(seed, epoch, index)).tobytes()
        for seed, epoch, index in ((1, 2, 3), (1, 2, 3), (1, 3, 3), (1, 2, 4))
    )
    assert first == again
    assert len({first, later, other}) == 3


def test_nothing_asked_for_nothing_done():
    picture = _picture()
    assert augment_picture(picture, _only(), sample_rng(0, 0, 0)) is picture


def test_turns_are_small_and_corners_have_the_colour_of_the_border():
    picture = Image.new("RGB", (200, 100), (90, 90, 90))
    picture.paste((255, 255, 255), (80, 40, 120, 60))
    for index in range(20):
        turned = np.asarray(augment_picture(picture, _only(rotation=5), sample_rng(0, 0, index)))
        assert turned.shape == (100, 200, 3)
        assert (turned[[0, 0, -1, -1], [0, -1, 0, -1]] == 90).all()
        assert turned[50, 100].tolist() == [255, 255, 255]
        marked = np.argwhere(turned[..., 0] > 170)
        assert np.ptp(marked[:, 1]) == pytest.approx(40, abs=3)


def test_crops_keep_the_proportions_and_lie_inside():
    picture, sizes = _picture(600, 400), []
    for index in range(50):
        part = augment_picture(picture, _only(crop=0.9), sample_rng(0, 0, index))
        sizes.append(part.width)
        assert 540 <= part.width <= 600
        assert part.width / part.height == pytest.approx(1.5, abs=0.01)
        assert part.getextrema()[0][0] >= 40
    assert max(sizes) - min(sizes) > 30


def test_tones_change_within_bounds_and_keep_their_order():
    picture = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    darkest, brightest = 255, 0
    for index in range(100):
        toned = augment_picture(picture, _only(brightness=0.1), sample_rng(0, 0, index))
        values = np.asarray(toned)[..., 0].ravel().astype(int)
        assert np.abs(values - np.arange(256)).max() <= 26  # a tenth of the range
        assert (np.diff(values) >= 0).all()
        darkest, brightest = min(darkest, values[128]), max(brightest, values[128])
    assert brightest - darkest > 30
    for settings in (_only(contrast=0.1), _only(gamma=0.1)):
        values = np.asarray(augment_picture(picture, settings, sample_rng(0, 0, 1)))[..., 0]
        off = np.abs(values.ravel().astype(int) - np.arange(256))
        assert 0 < off.max() <= 14


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation": 90}, "rotation is 90; expected a number from 0 to 45"),
        ({"crop": 0.1}, r"crop is 0\.1; expected a number from 0\.5 to 1"),
        ({"gamma": -1}, "gamma is -1"),
        ({"swap_laterality": True}, "set flip: true"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        Augmentation(**settings)
