"""Images per second and core: file to both encoders' views, against LAVIS and segment-anything.

python benchmarks/image_views.py [--images 4] [--rounds 7]

The peers do what a run with their own parts would do in one process: Pillow decodes the file,
LAVIS' ``blip2_image_train`` makes the CLIP view, segment-anything's ``ResizeLongestSide`` and
``Sam.preprocess`` the SAM view. Ours is reader, processor and packing; it ends with bytes, and the
model normalises them on its device. For a comparison of like with like there are two more columns:
"raw" leaves ``Sam.preprocess`` to the device, too, and "float" normalises our views on the same
core. Times are those of the processor in one thread, which neighbours on the machine change least.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _common import interleaved, machine
from lavis.processors.blip_processors import Blip2ImageTrainProcessor, BlipImageEvalProcessor
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from lavis_msmedcap.imaging.views import SAM_MEAN, SAM_STD, normalize_clip, normalize_sam
from lavis_msmedcap.imaging.views import unpack_views as unpack
from lavis_msmedcap.processors.image_processors import MSMedCapImageTrainProcessor

SIZES = ((600, 512), (764, 640), (900, 700), (1024, 1024), (2000, 2000))  # width, height
CLIP, SAM = 224, 1024


class Preprocessing:
    """What ``Sam.preprocess`` reads of its model; a real one would take 375 MB."""

    pixel_mean = torch.tensor(SAM_MEAN).view(-1, 1, 1)
    pixel_std = torch.tensor(SAM_STD).view(-1, 1, 1)

    class image_encoder:  # noqa: N801 - the name of the attribute
        """Its encoder."""

        img_size = SAM


def make_jpegs(folder: Path, size: tuple[int, int], count: int, grey: bool) -> list[str]:
    """Writes pictures with edges, smooth parts and noise, as scans have them."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        coarse = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        noise = rng.normal(0, 6, smooth.shape)
        picture = Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
        path = folder / f"{size[0]}x{size[1]}_{'grey' if grey else 'rgb'}_{index}.jpg"
        picture.convert("L" if grey else "RGB").save(path, quality=90)
        paths.append(str(path))
    return paths


def peers(preprocess: bool) -> Callable[[str], tuple[Tensor, Tensor]]:
    """Returns LAVIS' and segment-anything's way from a file to both views.

    Args:
        preprocess: Normalise and pad the SAM view, too.
    """
    processor = Blip2ImageTrainProcessor(image_size=CLIP)
    longest = ResizeLongestSide(SAM)

    def views(path: str) -> tuple[Tensor, Tensor]:
        picture = Image.open(path).convert("RGB")
        clip = processor(picture)
        resized = longest.apply_image(np.asarray(picture))
        sam = torch.as_tensor(resized).permute(2, 0, 1).contiguous()
        return clip, Sam.preprocess(Preprocessing, sam) if preprocess else sam

    return views


def normalised(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Does what the model does with packed views on its device."""
    views = unpack(packed)
    return normalize_clip(views.clip), normalize_sam(views.sam, views.valid_sizes)


def largest_differences(path: str, packed: Tensor) -> tuple[float, float]:
    """Compares our views with LAVIS' evaluation processor and segment-anything, in grey levels."""
    clip, sam = normalised(packed)
    picture = Image.open(path).convert("RGB")
    expected = BlipImageEvalProcessor(image_size=CLIP)(picture)
    resized = ResizeLongestSide(SAM).apply_image(np.asarray(picture))
    theirs = Sam.preprocess(Preprocessing, torch.as_tensor(resized).permute(2, 0, 1))
    scale = 255 * torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    of_clip = ((clip[0] - expected) * scale).abs().max()
    of_sam = ((sam[0] - theirs) * Preprocessing.pixel_std).abs().max()
    return float(of_clip), float(of_sam)


def main() -> None:
    """Prints images per second and core, ratios, and how far the views are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4, help="of each size")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    processor = MSMedCapImageTrainProcessor(CLIP, SAM)
    theirs, theirs_raw = peers(True), peers(False)

    def ours(path: str) -> Tensor:
        return processor(processor.read(path))

    print(f"{machine()}; CLIP view {CLIP}, SAM view {SAM}, median of {arguments.rounds}")
    print(
        "images/s/core     peers    ours  ratio | ours / peers raw | ours float / peers |", end=""
    )
    print(" largest difference (levels): CLIP, SAM")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for grey in (False, True):
            for size in SIZES:
                paths = make_jpegs(Path(folder), size, arguments.images, grey)
                ways = {
                    "peers": lambda paths=paths: [theirs(path) for path in paths],
                    "raw": lambda paths=paths: [theirs_raw(path) for path in paths],
                    "ours": lambda paths=paths: [ours(path) for path in paths],
                    "float": lambda paths=paths: [normalised(ours(path)) for path in paths],
                }
                seconds = interleaved(ways, arguments.rounds, time.process_time)
                rate = {name: len(paths) / value for name, value in seconds.items()}
                ratios.append(rate["ours"] / rate["peers"])
                pairs = [largest_differences(path, ours(path)) for path in paths]
                clip, sam = (max(values) for values in zip(*pairs))
                name = f"{size[0]}x{size[1]} {'grey' if grey else 'RGB'}"
                print(
                    f"{name:<15}{rate['peers']:8.1f}{rate['ours']:8.1f}"
                    f"{rate['ours'] / rate['peers']:7.2f} |{rate['ours'] / rate['raw']:17.2f} |"
                    f"{rate['float'] / rate['peers']:19.2f} | {clip:.1f}, {sam:.1f}",
                    flush=True,
                )
    print(f"geometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
