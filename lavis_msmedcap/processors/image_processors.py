"""The image processors ``msmedcap_image_train`` and ``msmedcap_image_eval``.

Both make the same views: no flip (captions name sides), no crop (the lesion may lie at the edge).
What is the same in every epoch is also what lets features of frozen encoders be cached.
"""

from __future__ import annotations

from typing import Any, ClassVar

from lavis.common.registry import registry
from lavis.processors.base_processor import BaseProcessor
from PIL import Image
from torch import Tensor

from lavis_msmedcap.common.config_check import Key, Node
from lavis_msmedcap.common.errors import ConfigError
from lavis_msmedcap.imaging.raster import to_rgb
from lavis_msmedcap.imaging.views import pack_image


@registry.register_processor("msmedcap_image_eval")
class MSMedCapImageEvalProcessor(BaseProcessor):
    """Turns a picture into both encoders' views, packed into one tensor.

    Args:
        image_size: Side of the CLIP view in pixels.
        sam_image_size: Side of the SAM view in pixels; the picture's longest side is scaled to it.
    """

    CONFIG_KEYS: ClassVar[dict[str, Node]] = {
        "name": Key(str),
        "image_size": Key(int, above=0),
        "sam_image_size": Key(int, above=0),
    }

    def __init__(self, image_size: int = 224, sam_image_size: int = 1024) -> None:
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

    def __call__(self, image: Image.Image) -> Tensor:
        """Makes the views.

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
        """Builds the processor from its configuration node; absent keys take the defaults."""
        cfg = {} if cfg is None else cfg
        return cls(
            image_size=cfg.get("image_size", 224), sam_image_size=cfg.get("sam_image_size", 1024)
        )


@registry.register_processor("msmedcap_image_train")
class MSMedCapImageTrainProcessor(MSMedCapImageEvalProcessor):
    """The training processor: by default the same views as in evaluation."""
