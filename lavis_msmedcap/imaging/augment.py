"""Random changes of a picture that a radiologist would not mind: small turns, crops and tones.

No flip: that changes what a caption says, see `lavis_msmedcap.processors.image_processors`. All
randomness comes from a generator that the caller gives, so that a resumed run sees the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lavis_msmedcap.common.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """How far a picture may be changed; 0 (crop: 1) leaves a property as it is.

    Attributes:
        rotation: Largest turn to either side in degrees.
        crop: Smallest side of the part that is shown, relative to the whole.
        brightness: Largest shift, relative to the range from black to white.
        contrast: Largest change of the distance from middle grey, relative.
        gamma: Largest change of the exponent, relative.
        flip: Mirror every other picture whose caption names no side.
        swap_laterality: Mirror the others, too, and swap left and right in their captions.

    Raises:
        ConfigError: If a value is out of range.
    """

    rotation: float = 5.0
    crop: float = 0.9
    brightness: float = 0.1
    contrast: float = 0.1
    gamma: float = 0.1
    flip: bool = False
    swap_laterality: bool = False

    def __post_init__(self) -> None:
        ranges: dict[str, tuple[float, float]] = {"rotation": (0, 45), "crop": (0.5, 1)}
        ranges.update(dict.fromkeys(("brightness", "contrast", "gamma"), (0, 0.5)))
        problems = [
            f"augment.{name} is {getattr(self, name):g}; expected a number from {low} to {high}"
            for name, (low, high) in ranges.items()
            if not low <= getattr(self, name) <= high
        ]
        if self.swap_laterality and not self.flip:
            problems.append("augment.swap_laterality is true, but flip is not; set flip: true")
        if problems:
            raise ConfigError(problems)


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Returns the random numbers of one sample in one epoch, whoever asks and in which order."""
    return np.random.default_rng([seed, epoch, index])


def augment_picture(
    image: Image.Image, settings: Augmentation, rng: np.random.Generator
) -> Image.Image:
    """Turns, crops and tones a picture.

    Args:
        image: RGB picture.
        settings: How far.
        rng: The sample's random numbers.

    Returns:
        RGB picture, smaller than the given one where it was cropped.
    """
    angle, scale, left, top, *tones = rng.uniform(
        [-1, settings.crop, 0, 0, -1, -1, -1], [1, 1, 1, 1, 1, 1, 1]
    )
    if settings.rotation:
        image = image.rotate(
            float(angle) * settings.rotation,
            Image.Resampling.BILINEAR,
            fillcolor=_border_colour(image),
        )
    if settings.crop < 1:
        width, height = (max(1, round(side * float(scale))) for side in image.size)
        x = round((image.width - width) * float(left))
        y = round((image.height - height) * float(top))
        image = image.crop((x, y, x + width, y + height))
    return _tone(image, settings, tones)


def _border_colour(image: Image.Image) -> tuple[int, ...]:
    """Returns the median colour of the frame, to fill the corners with what surrounds them."""
    pixels = np.asarray(image)  # (H, W, 3)
    frame = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(frame, axis=0))


def _tone(image: Image.Image, settings: Augmentation, shares: list[float]) -> Image.Image:
    """Changes gamma, contrast and brightness by one table of 256 values."""
    brightness, contrast, gamma = shares
    if not (settings.brightness or settings.contrast or settings.gamma):
        return image
    exponent = math.exp(gamma * math.log1p(settings.gamma))
    values = (np.arange(256) / 255) ** exponent
    values = (values - 0.5) * (1 + contrast * settings.contrast) + 0.5
    values = values + brightness * settings.brightness
    table = np.rint(np.clip(values, 0, 1) * 255).astype(int).tolist()
    return image.point(table * 3)
