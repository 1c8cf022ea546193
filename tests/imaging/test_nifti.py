from __future__ import annotations

import sys

import numpy as np
import pytest

from lavis_msmedcap.common.errors import BadImageError
from lavis_msmedcap.imaging.read import ReadOptions, read_image
from lavis_msmedcap.imaging.windows import Window

nibabel = pytest.importorskip("nibabel")

# along right, anterior, superior, in RAS+ order: right half bright, front quarter brightest
RAS = np.zeros((8, 12, 5), np.int16)
RAS[4:] = 100  # the patient's right
RAS[:, 9:] += 50  # the front
RAS += np.arange(5, dtype=np.int16)  # feet to head


def shown(path, **window):
    image = read_image(path, ReadOptions(window=Window(center=100, width=256, **window)))
    return np.array(image)[..., 0].astype(int)


def save(path, axes, values=RAS, zooms=(1, 1, 1)):
    """Writes a volume whose array lies along ``axes`` ("RAS", "LPS", "SAR", ...)."""
    canonical = nibabel.Nifti1Image(values, np.diag([*zooms, 1]))
    there = nibabel.orientations.axcodes2ornt(tuple(axes))
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(canonical.affine), there)
    nibabel.save(canonical.as_reoriented(turn), path)
    return path


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SAR", "ASR", "PIL", "RSA"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_radiological_convention_whatever_the_order_on_disk(tmp_path, axes, suffix):
    path = save(tmp_path / f"head{suffix}", axes)
    pixels = shown(path)
    assert pixels.shape == (12, 8)
    assert pixels[11, 0] - pixels[11, 7] == pytest.approx(100, abs=2)  # right is on the left
    assert pixels[0, 0] - pixels[11, 0] == pytest.approx(50, abs=2)  # the front is at the top
    assert np.array_equal(pixels, shown(f"{path}::slice=2"))  # the middle
    for number in range(5):
        step = shown(f"{path}::slice={number}") - pixels
        assert step.mean() == pytest.approx(number - 2, abs=0.6)  # counted from the feet


def test_voxels_become_square(tmp_path):
    path = save(tmp_path / "a.nii", "LPS", zooms=(1, 2, 5))
    assert read_image(path).size == (8, 24)


def test_grey_values(tmp_path):
    values = np.tile(np.linspace(-1000, 1000, 64).round(), (40, 1))[..., None].repeat(3, 2)
    path = save(tmp_path / "a.nii", "RAS", values.astype(np.int16))
    pixels = np.array(read_image(path))[::-1, 0, 0]  # from the back to the front
    assert (pixels[0], pixels[-1]) == (0, 255)
    volume = nibabel.load(path)
    volume.header["cal_min"], volume.header["cal_max"] = 0, 500
    nibabel.save(volume, tmp_path / "b.nii")
    pixels = np.array(read_image(tmp_path / "b.nii"))[::-1, 0, 0]
    assert np.abs(pixels - np.clip(values[0, :, 0] / 500 * 255, 0, 255)).max() <= 1


def test_first_volume_of_a_series(tmp_path):
    series = np.stack([RAS, RAS + 80], -1)
    nibabel.save(nibabel.Nifti1Image(series, np.eye(4)), tmp_path / "a.nii.gz")
    assert np.array_equal(shown(tmp_path / "a.nii.gz"), shown(save(tmp_path / "b.nii", "RAS")))


def test_what_cannot_be_shown(tmp_path):
    path = save(tmp_path / "a.nii", "RAS")
    with pytest.raises(BadImageError, match=r"a\.nii::slice=5: no slice 5; the volume has 5"):
        read_image(f"{path}::slice=5")
    with pytest.raises(BadImageError, match="8 x 12 pixels are more than 95"):
        read_image(path, ReadOptions(max_pixels=95))
    nibabel.save(nibabel.Nifti1Image(RAS[..., 0], np.eye(4)), tmp_path / "flat.nii")
    with pytest.raises(BadImageError, match=r"shape \(8, 12\); expected three axes"):
        read_image(tmp_path / "flat.nii")
    nibabel.save(nibabel.Nifti1Image(RAS + 1j, np.eye(4)), tmp_path / "complex.nii")
    with pytest.raises(BadImageError, match="expected one number per voxel"):
        read_image(tmp_path / "complex.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_damaged_volumes(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 4096, RAS.shape, dtype=np.int16)
    path = save(tmp_path / f"a{suffix}", "RAS", noise)
    whole = path.read_bytes()
    for length in (0, 100, 349, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(BadImageError, match=r"a\.nii"):
            read_image(f"{path}::slice=4")  # the last


def test_without_nibabel(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii", "RAS")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(BadImageError, match=r'pip install "lavis-msmedcap\[nifti\]"'):
        read_image(path)
