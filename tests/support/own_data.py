"""The table of the README's own-data example, with images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dicom_files import make_dicom, save
from PIL import Image


def make_own_data(folder: Path) -> None:
    """Makes the table of the README, with six DICOM files and six PNG files."""
    images = folder / "my" / "images"
    if images.is_dir():
        return
    images.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 4096, (12, 96, 120), dtype=np.uint16)
    lines = ["image,caption,patient_id"]
    for number, values in enumerate(pixels):
        name = f"images/{number:03d}.{'dcm' if number < 6 else 'png'}"
        if number < 6:
            save(make_dicom(values), folder / "my" / name)
        else:
            Image.fromarray((values // 16).astype(np.uint8)).save(folder / "my" / name)
        lines.append(f'{name},"Axial CT of the chest, nodule of {number} mm.",p{number}')
    (folder / "my" / "captions.csv").write_text("\n".join(lines) + "\n")
