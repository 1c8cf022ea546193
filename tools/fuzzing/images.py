"""Images of all formats and depths, and the names of parts of files."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from fuzzing.damage import damaged_png
from fuzzing.target import Target
from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.imaging.read import read_image


def image_targets() -> Iterator[Target]:
    """Yields an image of each kind, and names of parts of files."""
    for name, content in image_seeds().items():
        damage = damaged_png if name.startswith("png") else None
        yield Target(name, {"image": content}, lambda folder: read_image(folder / "image"), damage)
    places = ["a.tar::bytes=512+99", "a.dcm::frame=1", "a.nii::slice=-1", "a.parquet::row=0@image"]
    yield Target(
        "place",
        {"name": places[0].encode(), "name2": places[1].encode(), "a.tar": b"\0" * 2048},
        lambda folder: [
            _read_or_refuse(f"{folder}/{(folder / name).read_bytes().decode(errors='replace')}")
            for name in ("name", "name2")
        ],
    )


def _read_or_refuse(place: str) -> None:
    try:
        read_image(place)
    except DataError:
        return


def image_seeds() -> dict[str, bytes]:
    """Returns small valid images of the formats and depths that data sets hold."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (33, 47, 4), dtype=np.uint8)
    rgb, rgba = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [rgb.quantize(16), rgb.rotate(90, expand=True).resize(rgb.size).quantize(16)]
    saved: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpeg": (rgb, "JPEG", {"exif": exif}),
        "jpeg_progressive": (rgb.convert("L"), "JPEG", {"progressive": True}),
        "jpeg_cmyk": (rgb.convert("CMYK"), "JPEG", {}),
        "png": (rgba, "PNG", {}),
        "png_16_bit": (deep, "PNG", {}),
        "png_palette": (rgb.quantize(8), "PNG", {"transparency": 0}),
        "tiff": (rgb.convert("CMYK"), "TIFF", {"compression": "tiff_lzw"}),
        "tiff_16_bit": (deep, "TIFF", {}),
        "tiff_float": (Image.fromarray(noise[..., 0].astype(np.float32)), "TIFF", {}),
        "gif": (frames[0], "GIF", {"save_all": True, "append_images": frames[1:]}),
        "webp": (rgba, "WEBP", {"lossless": True}),
        "bmp": (rgb, "BMP", {}),
    }
    seeds = {}
    for name, (image, kind, options) in saved.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        seeds[name] = buffer.getvalue()
    return {**seeds, "dicom": _dicom(noise[..., 0]), "dicom_rgb": _dicom(noise[..., :3])}


def _dicom(pixels: np.ndarray) -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["fuzz"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    data.Rows, data.Columns = pixels.shape[:2]
    grey = pixels.ndim == 2
    data.PhotometricInterpretation = "MONOCHROME1" if grey else "RGB"
    data.SamplesPerPixel, data.PixelRepresentation = (1, 0) if grey else (3, 0)
    data.BitsAllocated, data.BitsStored, data.HighBit = (16, 12, 11) if grey else (8, 8, 7)
    if grey:
        data.WindowCenter, data.WindowWidth = [120, 60], [200, 40]
        data.RescaleSlope, data.RescaleIntercept = 1, -24
    else:
        data.PlanarConfiguration = 0
    data.PixelData = (pixels.astype(np.uint16) if grey else pixels).tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer)
    return buffer.getvalue()
