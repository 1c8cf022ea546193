"""Feeds damaged files to the readers of data sets and images, and odd text to the caption code.

    python tools/fuzz_data.py --cases 100000
    python tools/fuzz_data.py --only png,roco --cases 1 --first 4711      # one case again

A case is a small valid tree of files of which one is damaged: bits turned, pieces cut out, doubled,
moved or cut off, odd pieces put in. It passes if the reader reads it or refuses it with one of our
own errors (`DataError`, of which `BadImageError` is one) within five seconds. Cases depend on seed,
target and number only.

To put a reader under test, add it to `targets`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import faulthandler
import io
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image

from lavis_msmedcap.common.errors import DataError
from lavis_msmedcap.datasets.caption_text import STEPS, clean_caption, strip_marks
from lavis_msmedcap.datasets.laterality import can_swap, names_side, swap_sides
from lavis_msmedcap.datasets.readers.coco import read_coco
from lavis_msmedcap.datasets.readers.medicat import read_medicat
from lavis_msmedcap.datasets.readers.roco import read_roco
from lavis_msmedcap.datasets.readers.roco_kaggle import read_roco_kaggle
from lavis_msmedcap.datasets.readers.rocov2 import read_rocov2
from lavis_msmedcap.datasets.readers.table import read_table
from lavis_msmedcap.imaging.read import read_image

LIMIT = 5.0  # seconds a case may take
HARD_LIMIT = 60.0  # after so many the interpreter is ended, with the place where it hangs
WARM_UP = 200  # cases before memory is looked at

TEXT_PIECES = [
    *(
        "\t",
        "\r",
        "\n",
        "\r\n",
        '"',
        '""',
        "'",
        ",",
        ";",
        "\\",
        "/",
        "../",
        "\x00",
        "\ufeff",
        "\u2028",
    ),
    *(
        "\u00a0",
        "\u2061",
        "\u200b",
        "e\u0301",
        "\U0001f9e0",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        "null",
    ),
    *(
        "true",
        "-1",
        "1e999",
        "NaN",
        "9" * 400,
        "(arrow)",
        "Fig. 1. ",
        "(A) ",
        "[12]",
        "\u00a9 ",
        "left",
    ),
    *(
        "reproduced with permission of ",
        "[" * 3000,
        "(" * 3000,
        "{" * 3000,
        "a" * 20000,
        " " * 5000,
    ),
]
JSON_VALUES = [
    *(None, True, False, 0, -1, 2**70, 1.5, float("nan"), float("inf"), "", [], {}, [[]], [None]),
    *({"a": {}}, ["a", 1], "\ud800", "..", "/etc/x", "C:\\x", "a/../../b", "x" * 5000),
]
BYTE_PIECES = [
    *(piece.encode() for piece in TEXT_PIECES),
    *(bytes([value]) * count for value in (0x00, 0x7F, 0x80, 0xFF) for count in (1, 2, 4, 64)),
    *(
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xc3",
        b"\xff\xd8",
        b"\xff\xd9",
        b"\x89PNG",
        b"II*\x00",
        b"DICM",
    ),
    *(n.to_bytes(4, order) for n in (1, 2**16, 2**31 - 1) for order in ("big", "little")),
]


Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """Something that reads files.

    Attributes:
        name: For the command line and the report.
        files: A small valid tree: content by path. One that is not empty is damaged in each case.
        read: Reads the tree in a folder to its end.
        damage: Damage that gets past a format's first check (a checksum, a parser); done in half of
            the cases.
    """

    name: str
    files: dict[str, bytes]
    read: Callable[[Path], object]
    damage: Damage | None = None


@dataclass
class Result:
    """What a run of cases showed.

    Attributes:
        outcomes: Cases by target and outcome: "read", or the error's class.
        refused: Targets that refuse their own files undamaged, so that little is tested by them.
        failures: Cases that did not pass, by what happened and where; each as what to type to see
            it again, and what was raised.
        slowest: Seconds, target and number of the slowest case.
        growth: Growth of the peak memory after the first cases, in MiB.
        seconds: Duration of all.
    """

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    failures: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    slowest: tuple[float, str, int] = (0.0, "", 0)
    growth: float = 0.0
    seconds: float = 0.0

    def fail(self, what: str, again: str, trace: str = "") -> None:
        """Notes a case that did not pass."""
        self.failures.setdefault(what, []).append((again, trace))

    @property
    def cases(self) -> int:
        """Number of cases."""
        return sum(sum(counts.values()) for counts in self.outcomes.values())


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Returns a copy with one to six kinds of damage."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        rng.choice(_DAMAGES)(changed, rng)
    return bytes(changed)


def _turn_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 32)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set_bytes(data: bytearray, rng: random.Random) -> None:
    # the beginning of a file says how to read the rest
    reach = min(len(data), rng.choice((64, 512, 10**9)))
    for _ in range(rng.choice((1, 2, 8)) if data else 0):
        data[rng.randrange(reach)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _cut_out(data: bytearray, rng: random.Random) -> None:
    start, end = _span(data, rng)
    del data[start:end]


def _cut_off(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _double(data: bytearray, rng: random.Random) -> None:
    start, end = _span(data, rng)
    data[end:end] = data[start:end] * rng.choice((1, 1, 1, 20))


def _move(data: bytearray, rng: random.Random) -> None:
    start, end = _span(data, rng)
    piece = data[start:end]
    del data[start:end]
    place = rng.randrange(len(data) + 1)
    data[place:place] = piece


def _put_in(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.choice(BYTE_PIECES)


def _write_over(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    piece = rng.choice(BYTE_PIECES)
    data[place : place + len(piece)] = piece


_DAMAGES = (
    *(_turn_bits, _set_bytes, _cut_out, _cut_off, _double, _move, _put_in, _put_in, _write_over),
)


def damaged_png(data: bytes, rng: random.Random) -> bytes:
    """Damages what lies inside the chunks of a PNG file, whose checksums then fit again."""
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    hit = rng.randrange(len(chunks))
    chunks[hit] = chunks[hit][0], damaged(chunks[hit][1], rng)
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    parts = [
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in chunks
    ]
    return data[:8] + b"".join(parts)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """Puts odd values in the place of others, so that the file stays JSON, or lines of JSON."""
    lines = data.split(b"\n")
    hit = rng.randrange(len(lines))
    if lines[hit].strip():
        box = [json.loads(lines[hit])]
        for _ in range(rng.choice((1, 1, 2))):
            holder, key = rng.choice(list(_places(box)))
            holder[key] = copy.deepcopy(rng.choice([*TEXT_PIECES, *JSON_VALUES]))
        lines[hit] = json.dumps(box[0], ensure_ascii=rng.random() < 0.5).encode(
            errors="surrogatepass"
        )
    return b"\n".join(lines)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


def _span(data: bytearray, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 4, 32, 256)))


def targets() -> list[Target]:
    """Returns everything that is put under test; a new reader is one more entry."""
    return [*_image_targets(), *_reader_targets(), *_table_targets(), _caption_target()]


def _image_targets() -> Iterator[Target]:
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


def _reader_targets() -> Iterator[Target]:
    folder = "data/train/radiology"
    yield Target(
        "roco",
        {
            f"{folder}/captions.txt": "\ufeffROCO_00001\t CT of the liver.\r\n"
            "ROCO_00002\t MRI \u2028 of the knee (arrow).\r\n".encode(),
            f"{folder}/licences.txt": b"ROCO_ID,PMC_ID,CC\nROCO_00001,PMC11_a-g1.jpg,CC BY\n"
            b'ROCO_00002,"PMC11_b, c.jpg",CC BY\n',
        },
        lambda root: list(read_roco(root, "train")),
    )
    yield Target(
        "roco_links",
        {
            f"{folder}/captions.txt": b"ROCO_00001\t CT of the liver.\n",
            f"{folder}/dlinks.txt": b"ROCO_00001\twget ftp://h/PMC55.tar.gz -P /x\tscan-g1.jpg\n",
        },
        lambda root: list(read_roco(root, "train")),
    )
    yield Target(
        "roco_kaggle",
        {
            "all_data/train/radiologytraindata.csv": b"id,name,caption\n"
            b'ROCO_00001,PMC11_a-g1.jpg," CT, ""axial"" view\n"\n',
            "all_data/train/radiology/images/PMC11_a-g1.jpg": b"",
        },
        lambda root: list(read_roco_kaggle(root, "train")),
    )
    yield Target(
        "rocov2",
        {
            "train_captions.csv": "\ufeffID,Caption\r\nROCOv2_1,CT\r\nROCOv2_2,MRI\r\n".encode(),
            "license_information.csv": b"ID,Link\nROCOv2_1,https://x/PMC77/\n",
            "train_images/train/ROCOv2_1.jpg": b"",
        },
        lambda root: list(read_rocov2(root, "train")),
    )
    entry = {
        "pdf_hash": "a" * 40,
        "fig_uri": "1-Figure1-1.png",
        "s2_caption": "Figure 1. CT of the chest (arrow).",
        "s2orc_caption": None,
        "s2orc_references": ["As Fig. 1 shows"],
        "radiology": True,
        "oa_info": {"doi": "10.1/x", "oa": {"is_oa": True}},
    }
    lines = json.dumps(entry) + "\r\n" + json.dumps({**entry, "fig_uri": "2.png"}) + "\n"
    name = "release/s2_full_figures_oa_nonroco_combined_medical_top4_public.jsonl"
    files = {name: lines.encode()}
    yield Target("medicat", files, lambda root: list(read_medicat(root)), damaged_json)
    coco = {
        "images": [{"id": 1, "file_name": "COCO_train2014_1.jpg"}],
        "annotations": [{"image_id": 1, "id": 5, "caption": "A bowl of food."}],
    }
    karpathy = [{"image": "val2014/2.jpg", "caption": ["A", "B"], "image_id": "coco_2"}]
    for kind, content in (("coco", coco), ("karpathy", karpathy)):
        yield Target(
            kind,
            {"captions.json": json.dumps(content).encode()},
            lambda root: list(read_coco(root / "captions.json", root, "train")),
            damaged_json,
        )


def _table_targets() -> Iterator[Target]:
    rows = [
        {"image": "a.png", "caption": "CT, axial; 0.37 cm.", "patient": "7", "split": "train"},
        {"image": "b/c.dcm", "caption": 'MRI of the "knee"\nin two lines', "patient": "8"},
        {"image": "b/d.png", "caption": "R\u00f6ntgen", "patient": "8", "split": "valid"},
    ]
    files = {
        "jsonl": "".join(json.dumps(row) + "\r\n" for row in rows).encode(),
        "json": json.dumps(rows).encode(),
    }
    with contextlib.suppress(ImportError):  # pyarrow is an extra
        files["parquet"] = _parquet(rows)
    for kind, separator, encoding in (("csv", ",", "utf-8"), ("tsv", "\t", "utf-16")):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
        files[kind] = text.getvalue().encode(encoding)
    for kind, content in files.items():
        damage = damaged_json if kind.startswith("json") else None
        yield Target(f"table_{kind}", {f"t.{kind}": content}, _read_table, damage)


def _read_table(root: Path) -> None:
    (table,) = (path for path in root.iterdir() if path.stem == "t")
    for split in ("train", None):
        with contextlib.suppress(DataError):
            list(read_table(table, split=split))
    list(read_table(table))


def _parquet(rows: list[dict[str, str]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _caption_target() -> Target:
    text = (
        "Figure 2a. (A) CT\u00a0of the left lung (white arrow, 0.37 cm) [12]. \u00a9 2010 X. MRI."
    )
    return Target("caption", {"caption": text.encode()}, _read_caption)


def _read_caption(folder: Path) -> None:
    text = (folder / "caption").read_bytes().decode(errors="surrogateescape")
    for steps in ((), tuple(STEPS)):
        clean = clean_caption(text, steps)
        if len(clean.splitlines()) > 1 or clean != clean.strip():
            raise AssertionError(f"not on one line: {clean!r}")
        clean_caption(text, steps, unicode=False)
    strip_marks(text)
    swapped = swap_sides(text)
    if swap_sides(swapped) != text or can_swap(swapped) != can_swap(text):
        raise AssertionError("swapping sides twice is not where it began")
    if swapped != text and not names_side(text):
        raise AssertionError("a side was swapped that is not named")


def run(
    cases: int,
    seed: int = 0,
    first: int = 0,
    only: Sequence[str] = (),
    *,
    messages: TextIO | None = None,
) -> Result:
    """Runs cases, spread evenly over the targets.

    Args:
        cases: How many.
        seed: Of all damage.
        first: Number of the first case of each target.
        only: Names of targets; all if empty.
        messages: Where to tell how far it is, and where it hangs; by default nowhere and stderr.
    """
    chosen = [target for target in targets() if not only or target.name in only]
    if not chosen:
        raise SystemExit(f"no target is called {', '.join(only)}")
    result = Result(outcomes={target.name: Counter() for target in chosen})
    started, before = time.perf_counter(), 0
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as folder:
        roots = {target.name: Path(folder) / target.name for target in chosen}
        for target in chosen:
            for name, content in target.files.items():
                _write(roots[target.name] / name, content)
            try:
                target.read(roots[target.name])
            except DataError:
                result.refused.append(target.name)
        for number in range(cases):
            target = chosen[number % len(chosen)]
            _case(target, roots[target.name], seed, first + number // len(chosen), result, messages)
            if number == min(WARM_UP, cases - 1):
                before = _peak()
            if messages and number % 10_000 == 9_999:
                print(f"{number + 1:,} cases", file=messages, flush=True)
    result.growth = (_peak() - before) / 1024
    result.seconds = time.perf_counter() - started
    return result


def _case(
    target: Target, root: Path, seed: int, number: int, result: Result, messages: TextIO | None
) -> None:
    rng = random.Random(f"{seed}/{target.name}/{number}")
    name = rng.choice([name for name, content in target.files.items() if content])
    damage = target.damage if target.damage and rng.random() < 0.5 else damaged
    _write(root / name, damage(target.files[name], rng))
    again = f"--only {target.name} --seed {seed} --first {number} --cases 1"
    faulthandler.dump_traceback_later(HARD_LIMIT, exit=True, file=messages or sys.__stderr__)
    started = time.perf_counter()
    try:
        target.read(root)
        outcome = "read"
    except DataError as error:
        outcome = type(error).__name__
    except Exception as error:  # noqa: BLE001 - to find these is what this is for
        outcome = type(error).__name__
        result.fail(f"{outcome} in {_own_place(error)}", again, traceback.format_exc(limit=-4))
    seconds = time.perf_counter() - started
    faulthandler.cancel_dump_traceback_later()
    if seconds > LIMIT:
        result.fail(f"{target.name} took more than {LIMIT} s", again, f"{seconds:.1f} s")
    result.slowest = max(result.slowest, (seconds, target.name, number))
    result.outcomes[target.name][outcome] += 1
    _write(root / name, target.files[name])


def _own_place(error: Exception) -> str:
    """Returns the innermost line of this repository in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or list(frames)
    ours = [frame for frame in own if "lavis_msmedcap" in frame.filename] or own
    return f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _peak() -> int:
    """Returns the peak memory of this process in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[TextIO]:
    """Hides what C libraries write to stderr of every damaged file; yields the real stderr."""
    real = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with os.fdopen(os.dup(real), "w") as messages:
            yield messages
    finally:
        os.dup2(real, 2)
        os.close(real)
        os.close(nowhere)


def main() -> int:
    """Runs the command; returns 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of a target")
    parser.add_argument("--only", default="", help="targets, with commas between them")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow and pydicom warn of damage before they refuse it
    names = [name for name in options.only.split(",") if name]
    with _quiet_libraries() as messages:
        result = run(options.cases, options.seed, options.first, names, messages=messages)
    for name, counts in result.outcomes.items():
        told = ", ".join(f"{kind} {count:,}" for kind, count in counts.most_common())
        print(f"{name:18} {told}")
    if result.refused:
        print(f"refused undamaged: {', '.join(result.refused)}")
    for what, found in sorted(result.failures.items(), key=lambda item: -len(item[1])):
        print(f"FAILED {len(found):,} times: {what}\n  {found[0][0]}\n{found[0][1]}")
    count = sum(map(len, result.failures.values()))
    seconds, name, number = result.slowest
    print(
        f"{result.cases:,} cases in {result.seconds:.0f} s, {count:,} failures; "
        f"slowest {seconds:.2f} s ({name} {number}); peak memory grew by {result.growth:.0f} MiB"
    )
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
