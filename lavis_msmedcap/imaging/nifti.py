"""A slice of a NIfTI volume as a picture.

The slice is axial and shown by the radiological convention: the patient's right side lies on the
left of the picture, the front of the body is at the top.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lavis_msmedcap.imaging.limits import check_size
from lavis_msmedcap.imaging.pixel_aspect import square_pixels
from lavis_msmedcap.imaging.tones import stretch, to_uint8
from lavis_msmedcap.imaging.windows import PRESETS, Window, linear_range

logger = logging.getLogger(__name__)

SUFFIXES = (".nii", ".nii.gz")
_INFERIOR_TO_SUPERIOR = 2  # of the axes right, anterior, superior


def is_nifti(path: str) -> bool:
    """Tells by the name whether a file is a NIfTI volume."""
    return path.lower().endswith(SUFFIXES)


def read_nifti(path: str, index: int | None, window: Window, max_pixels: int) -> Image.Image:
    """Reads one axial slice; of a series of volumes, of the first.

    Only the slice is loaded. Grey values follow ``window`` if it has a center, else the display
    range of the header, else `lavis_msmedcap.imaging.tones`.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.
        index: Slice counted from the feet, from 0; None takes the middle.
        window: Applies where it has a center and width. A file of this kind names no unit, so that
            a preset changes nothing, which is told once.
        max_pixels: Largest accepted size of the slice.

    Returns:
        RGB picture with square pixels.

    Raises:
        ValueError: If there is no such slice, the volume has too few axes, or nibabel is missing.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ValueError(
            f'NIfTI volumes need nibabel; pip install "lavis-msmedcap[nifti]" ({error})'
        ) from error
    volume: Any = nibabel.load(path)
    if len(volume.shape) < 3 or 0 in volume.shape:
        raise ValueError(f"the volume has the shape {tuple(volume.shape)}; expected three axes")
    # row i: which body axis the array's axis i follows, and whether with (1) or against it (-1)
    orientation = nibabel.io_orientation(volume.affine)[:3]
    if np.isnan(orientation).any():
        raise ValueError("the header's affine matrix does not tell how the volume lies")
    body_axis = orientation[:, 0].astype(int).tolist()
    vertical = body_axis.index(_INFERIOR_TO_SUPERIOR)
    others = [axis for axis in range(3) if axis != vertical]
    check_size(volume.shape[others[0]], volume.shape[others[1]], max_pixels)
    count = volume.shape[vertical]
    index = count // 2 if index is None else index
    if not 0 <= index < count:
        raise ValueError(f"no slice {index}; the volume has {count} axial ones, counted from 0")
    where: list[Any] = [slice(None)] * 3 + [0] * (len(volume.shape) - 3)
    where[vertical] = index if orientation[vertical, 1] > 0 else count - 1 - index
    plane = np.asarray(volume.dataobj[tuple(where)])

    # to (right, anterior), growing along both
    spacing = [float(volume.header.get_zooms()[axis]) for axis in others]
    for position, axis in enumerate(others):
        if orientation[axis, 1] < 0:
            plane = np.flip(plane, position)
    if body_axis[others[0]] > body_axis[others[1]]:
        plane, spacing = plane.T, spacing[::-1]
    shown = plane.T[::-1, ::-1]  # rows from the front, columns from the patient's right
    image = Image.fromarray(_to_grey(shown, volume.header, window)).convert("RGB")
    return square_pixels(image, spacing[1], spacing[0], max_pixels)


def _to_grey(values: npt.NDArray[np.generic], header: Any, window: Window) -> npt.NDArray[np.uint8]:
    if np.iscomplexobj(values) or values.dtype.names:
        raise ValueError(f"the volume holds {values.dtype}; expected one number per voxel")
    if window.preset is not None:
        _warn_of_preset(window.preset)
    chosen = window.chosen(hounsfield=False)
    if chosen is not None:
        return stretch(values, *linear_range(*chosen))
    low, high = float(header["cal_min"]), float(header["cal_max"])
    if np.isfinite([low, high]).all() and high > low:
        return stretch(values, low, high)
    return to_uint8(values)


@functools.cache
def _warn_of_preset(preset: str) -> None:
    """Says once in a process that a preset is not applied."""
    center, width = PRESETS[preset]
    logger.warning(
        "window.preset=%s is not applied to NIfTI volumes, which do not say whether their values "
        "are Hounsfield units. If they are, give window: {center: %g, width: %g}",
        preset,
        center,
        width,
    )
