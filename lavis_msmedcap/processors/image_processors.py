"""The image processors ``msmedcap_image_train`` and ``msmedcap_image_eval``.

Both make the same views: no flip (captions name sides), no crop (the lesion may lie at the edge).
What is the same in every epoch is also what lets features of frozen encoders be cached. Training
may be augmented on request; both encoders see the same change, as their views are made of one
picture.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from lavis_msmedcap.common.config_check import Key, Node, Nullable, Section, check
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.datasets.laterality import can_swap, names_side, swap_sides
from lavis_msmedcap.imaging.augment import Augmentation, augment_picture
from lavis_msmedcap.imaging.limits import MAX_PIXELS, PILLOW_MAX_PIXELS
from lavis_msmedcap.imaging.raster import to_rgb
from lavis_msmedcap.imaging.read import ReadOptions, read_image
from lavis_msmedcap.imaging.views import pack_image
from lavis_msmedcap.imaging.windows import PRESETS, Window

_WINDOW = Section(
    {
        "index": Key(int, minimum=0),
        "preset": Nullable(Key(str, choices=tuple(PRESETS))),
        "center": Nullable(Key(float)),
        "width": Nullable(Key(float, minimum=1)),
    },
    help="which values of DICOM and NIfTI scans become black and white",
)
_SHARE = Key(float, minimum=0, maximum=0.5)
_AUGMENT = Section(
    {
        "rotation": Key(float, minimum=0, maximum=45),
        "crop": Key(float, minimum=0.5, maximum=1),
        "brightness": _SHARE,
        "contrast": _SHARE,
        "gamma": _SHARE,
        "flip": Key(bool),
        "swap_laterality": Key(bool),
    },
    help="random changes in training; {} takes the defaults",
)


@registry.register_processor("msmedcap_image_eval")
class MSMedCapImageEvalProcessor(BaseProcessor):
    """Turns a picture into both encoders' views, packed into one tensor.

    Args:
        image_size: Side of the CLIP view in pixels.
        sam_image_size: Side of the SAM view in pixels; the picture's longest side is scaled to it.
        window: Which values of scans become black and white.
        max_pixels: Largest accepted size of a picture.

    Raises:
        ConfigError: If a size is not positive.
    """

    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        "name": Key(str),
        "image_size": Key(int, above=0),
        "sam_image_size": Key(int, above=0),
        "window": Nullable(_WINDOW),
        "max_pixels": Key(int, minimum=1, maximum=PILLOW_MAX_PIXELS),
    }

    def __init__(
        self,
        image_size: int = 224,
        sam_image_size: int = 1024,
        *,
        window: Window | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        sizes = {"image_size": image_size, "sam_image_size": sam_image_size}
        problems = [
            f"vis_processor {key} is {size}; expected a number of pixels above 0"
            for key, size in sizes.items()
            if size <= 0
        ]
        if problems:
            raise ConfigError(problems)
        self.image_size = image_size
        self.sam_image_size = sam_image_size
        self.read_options = ReadOptions(window or Window(), max_pixels)

    def read(self, image: str) -> Image.Image:
        """Reads an image with the window and the limit of this processor.

        Args:
            image: Its name, see `lavis_msmedcap.imaging.places`.

        Returns:
            RGB picture, for `__call__`.

        Raises:
            BadImageError: If it cannot be read.
        """
        return read_image(image, self.read_options)

    def __call__(self, image: Image.Image) -> Tensor:
        """Makes the views. Nothing is random here, in training neither.

        Args:
            image: A picture in any mode.

        Returns:
            uint8 (n,), see `lavis_msmedcap.imaging.views`.

        Raises:
            DataError: If it is something else than a Pillow image, or has no pixels.
        """
        return pack_image(to_rgb(image), self.image_size, self.sam_image_size)

    @classmethod
    def from_config(cls, cfg: Any = None) -> MSMedCapImageEvalProcessor:
        """Builds the processor from its configuration node; absent keys take the defaults.

        Raises:
            ConfigError: If a key is unknown or has a value that cannot work.
        """
        return cls(**cls._arguments(cfg))

    @classmethod
    def _arguments(cls, cfg: Any) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        plain = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
        settings: dict[str, Any] = dict(plain or {})
        problems = check(settings, cls.CONFIG_KEYS, "vis_processor")
        if problems:
            raise ConfigError(problems)
        settings.pop("name", None)
        if settings.get("window") is not None:
            settings["window"] = Window(**settings["window"])
        return settings


@registry.register_processor("msmedcap_image_train")
class MSMedCapImageTrainProcessor(MSMedCapImageEvalProcessor):
    """The training processor: by default the same views as in evaluation.

    Datasets of this package call `read`, `augment` and then the processor, and its tasks do so for
    the caption datasets of LAVIS. One that knows the processor as a mere function, as those do,
    gets the picture as it is.

    Args:
        image_size: Side of the CLIP view in pixels.
        sam_image_size: Side of the SAM view in pixels; the picture's longest side is scaled to it.
        window: Which values of scans become black and white.
        max_pixels: Largest accepted size of a picture.
        augmentation: Random changes; None for none.
    """

    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        **MSMedCapImageEvalProcessor.CONFIG_KEYS,
        "augment": Nullable(_AUGMENT),
    }

    def __init__(
        self,
        image_size: int = 224,
        sam_image_size: int = 1024,
        *,
        window: Window | None = None,
        max_pixels: int = MAX_PIXELS,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__(image_size, sam_image_size, window=window, max_pixels=max_pixels)
        self.augmentation = augmentation

    def augment(
        self, image: Image.Image, caption: str, rng: np.random.Generator
    ) -> tuple[Image.Image, str]:
        """Changes a picture at random, and its caption where that becomes untrue.

        A picture is mirrored only if its caption names no side, or if the sides in it can be
        swapped and that is asked for; else it stays as it lies.

        Args:
            image: RGB picture, as `read` returns it.
            caption: Its caption as written, before the text processor.
            rng: The sample's random numbers, see `lavis_msmedcap.imaging.augment.sample_rng`.

        Returns:
            Picture and caption; both as they were, if augmentation is off.
        """
        settings = self.augmentation
        if settings is None:
            return image, caption
        mirrored = settings.flip and rng.random() < 0.5
        image = augment_picture(image, settings, rng)
        if mirrored and not names_side(caption):
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), caption
        if mirrored and settings.swap_laterality and can_swap(caption):
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), swap_sides(caption)
        return image, caption

    @classmethod
    def _arguments(cls, cfg: Any) -> dict[str, Any]:
        settings = super()._arguments(cfg)
        augment = settings.pop("augment", None)
        return {
            **settings,
            "augmentation": None if augment is None else Augmentation(**augment),
        }
