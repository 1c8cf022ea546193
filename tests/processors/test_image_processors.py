from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dicom_files import make_dicom, ramp, save
from lavis.common.registry import registry
from lavis.processors.blip_processors import BlipImageEvalProcessor
from omegaconf import OmegaConf
from PIL import Image

from lavis_msmedcap.common.config_check import check
from lavis_msmedcap.common.errors import BadImageError, ConfigError, DataError
from lavis_msmedcap.imaging.augment import Augmentation, sample_rng
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


# --- reading -----------------------------------------------------------------------------------


def test_window_and_limit_from_a_configuration(tmp_path):
    stored = ramp(0, 4000)
    path = save(
        make_dicom(stored, Modality="CT", RescaleSlope="1", RescaleIntercept="-1024"),
        tmp_path / "ct.dcm",
    )
    config = {"image_size": 16, "sam_image_size": 16, "window": {"preset": "lung"}}
    processor = MSMedCapImageEvalProcessor.from_config(OmegaConf.create(config))
    expected = np.clip((stored - 1024 + 1350) / 1500 * 255, 0, 255)
    assert np.abs(np.asarray(processor.read(path))[..., 0] - expected).max() <= 1
    small = MSMedCapImageEvalProcessor.from_config({"max_pixels": 255})
    with pytest.raises(BadImageError, match=r"16 x 16 pixels are more than 255 .*raise max_pixels"):
        small.read(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"window": {"presett": "lung"}}, "vis_processor.window.presett is not a known key"),
        ({"window": {"preset": "lung", "center": 1, "width": 2}}, "exclude each other"),
        ({"augment": {"rotation": 90}}, "vis_processor.augment.rotation is 90"),
        ({"augment": {"swap_laterality": True}}, "set flip: true"),
        ({"imagesize": 3}, "vis_processor.imagesize is not a known key"),
        ({"max_pixels": 10**9}, "max_pixels is 1000000000; expected at most"),
    ],
)
def test_settings_that_cannot_work(config, message):
    with pytest.raises(ConfigError, match=message):
        MSMedCapImageTrainProcessor.from_config(config)


# --- augmentation ------------------------------------------------------------------------------


def _training(**augment):
    return MSMedCapImageTrainProcessor.from_config({"image_size": 32, "augment": augment})


def test_off_by_default():
    processor, picture = MSMedCapImageTrainProcessor(32, 48), _picture()
    assert processor.augment(picture, "CT.", sample_rng(0, 0, 0)) == (picture, "CT.")


def test_both_views_show_the_same_change():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((96, 96))
    processor = MSMedCapImageTrainProcessor(
        48, 48, augmentation=Augmentation(rotation=20, crop=0.6)
    )
    changed, caption = processor.augment(picture, "CT.", sample_rng(0, 0, 5))
    views = unpack_views(processor(changed))
    assert caption == "CT."
    apart = (views.clip.float() - views.sam.float()).abs().mean()
    moved = (views.sam.float() - unpack_views(processor(picture)).sam.float()).abs().mean()
    assert apart < 4 < moved


def _flips(processor, caption):
    """Returns the captions of 40 draws by whether the picture was mirrored."""
    picture = Image.fromarray(np.tile(np.arange(60, dtype=np.uint8), (40, 1))).convert("RGB")
    told = {True: set(), False: set()}
    for index in range(40):
        changed, text = processor.augment(picture, caption, sample_rng(0, 0, index))
        told[changed.getpixel((0, 0))[0] > 30].add(text)
    return told


STILL = {"rotation": 0, "crop": 1, "brightness": 0, "contrast": 0, "gamma": 0}


def test_flip_only_behind_its_flag():
    assert _flips(_training(**STILL), "CT of the skull.")[True] == set()
    assert _flips(_training(**STILL, flip=True), "CT of the skull.") == {
        True: {"CT of the skull."},
        False: {"CT of the skull."},
    }


@pytest.mark.parametrize(
    "caption", ["Mass in the LEFT lung.", "Right-sided effusion", "(L) kidney"]
)
def test_captions_that_name_a_side_are_not_mirrored(caption):
    assert _flips(_training(**STILL, flip=True), caption)[True] == set()


def test_sides_are_swapped_on_request():
    processor = _training(**STILL, flip=True, swap_laterality=True)
    assert _flips(processor, "Left lung, right adrenal.") == {
        True: {"Right lung, left adrenal."},
        False: {"Left lung, right adrenal."},
    }
    assert _flips(processor, "R kidney")[True] == set()  # nothing that could be swapped safely
