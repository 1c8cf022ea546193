"""What a model is given: samples of LAVIS' form, checked with the cure in the message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

EXPECTED_IMAGE = (
    "the packed views of msmedcap_image_eval, uint8 (B, n), or a CLIP-normalised float tensor "
    "(B, 3, H, W)"
)
IMAGE_CURE = (
    "vis['eval'](picture).unsqueeze(0) makes it of one picture, torch.stack of several, with vis "
    "from load_model_and_preprocess"
)


def require(samples: Any, keys: Collection[str], what: str) -> None:
    """Checks that samples hold what a call needs.

    Raises:
        ValueError: Naming the call and the first key that is absent or None, or what is not a
            tensor in the place of the image.
    """
    if not isinstance(samples, Mapping):
        raise ValueError(
            f"{what} needs samples, a dictionary such as {{'image': ...}}, and got "
            f"{type(samples).__name__}; {IMAGE_CURE}"
        )
    absent = [key for key in keys if samples.get(key) is None]
    if absent:
        cure = f", {EXPECTED_IMAGE}; {IMAGE_CURE}" if absent[0] == "image" else ""
        raise ValueError(f"{what} needs samples[{absent[0]!r}]{cure}")
    if "image" in keys:
        require_tensor(samples["image"])


def require_tensor(image: Any) -> None:
    """Checks that an image is a tensor.

    Raises:
        ValueError: Saying what it is, what was expected, and what makes that.
    """
    if not isinstance(image, Tensor):
        raise ValueError(
            f"image is of type {type(image).__name__}; expected {EXPECTED_IMAGE}; {IMAGE_CURE}"
        )


def texts_of(samples: Mapping[str, Any]) -> list[str]:
    """Returns ``text_input`` as a list; a single string is a batch of one, as in LAVIS' examples.

    Raises:
        ValueError: If there are images, but not one per text.
    """
    given = samples["text_input"]
    texts = [given] if isinstance(given, str) else list(given)
    image = samples.get("image")
    if image is not None and len(image) != len(texts):
        raise ValueError(
            f"samples['text_input'] has {len(texts)} texts for {len(image)} images; "
            "expected one text per image"
        )
    return texts
