"""``msmedcap data convert``: data sets as tar shards, or as LAVIS' annotation files."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lavis_msmedcap import train
from lavis_msmedcap.common.errors import ConfigError, Interruption
from lavis_msmedcap.common.paths import resolve_path
from lavis_msmedcap.common.startup import prepare_process

if TYPE_CHECKING:
    from lavis_msmedcap.run_data import RunData

_MIB = 1 << 20

HELP = "write the data of a configuration or folder as WebDataset shards or as LAVIS json"
EPILOG = """
examples:
  msmedcap data convert projects/msmedcap/caption.yaml /data/shards --to webdataset \\
                        --options scale=paper datasets.roco.build_info.root=/data/roco
  msmedcap data convert /data/roco /data/shards --to webdataset --shard-mib 256 --workers 8
  msmedcap data convert /data/roco /data/roco_lavis --to lavis-json --images copy

webdataset   roco-train-000000.tar … with 000000123.jpg and 000000123.json (captions, image_id,
             group_id, source, domain, split), and an index beside each. Any WebDataset program
             reads them; here webdataset_caption does: a run configuration that reads them is
             printed at the end. An interrupted conversion goes on where it stopped when the same
             command is given again, and ends with the same bytes.
lavis-json   roco_train.json, roco_val.json … as LAVIS' coco_caption builder reads them, with all
             references of val and test in roco_val_gt.json.

JPEG, PNG and WebP files that every program shows alike are copied byte for byte, without the
metadata (EXIF, XMP, comments, colour profiles, thumbnails) if they have any. DICOM, 16-bit,
multi-frame, transparent, EXIF-rotated and other images are decoded as for training and stored as
PNG, of which nothing but pixels remains. In shards, patients (group_id) are numbers unless
--keep-group-ids is given; ids of articles stay. Image ids, which may come from file names, and
captions are written as they are: see to it that they name nobody.

A configuration is read as in training: its splits, filters, caps and windows count. A folder is
taken whole, and its scans are stored with the default window of the image processors. Training
reads the same pixels from what is written as from the originals, unless --max-side or --reencode
jpeg change them. The window of a scan that is stored as PNG is in its pixels: no later setting
changes it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``msmedcap data convert``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("place", metavar="CONFIG|FOLDER", help="run configuration, or a data set")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the new files")
    parser.add_argument("--to", required=True, choices=("webdataset", "lavis-json"))
    parser.add_argument("--format", metavar="NAME", help="format of FOLDER, instead of looking")
    parser.add_argument(
        "--name", help="name of the data set in FOLDER, in files and records (default: FOLDER's)"
    )
    parser.add_argument(
        "--on-bad",
        choices=("error", "skip"),
        default="error",
        help="broken images: stop at the first (default), or leave out and count; of images that "
        "are missing skip leaves out as many as training does: 5 %% of train, none of val and test",
    )
    parser.add_argument(
        "--max-side",
        type=_positive,
        metavar="PX",
        help="scale images with a longer side down to PX and store them anew: less disk and faster "
        "reading. With 1024 (and PNG) the SAM branch sees the same pixels as before; the CLIP view "
        "is then made from the smaller image and differs slightly",
    )
    parser.add_argument(
        "--reencode",
        choices=("png", "jpeg"),
        help="store every image anew: png loses nothing but the file's own form, jpeg (quality 95) "
        "changes pixels slightly",
    )
    parser.add_argument("--workers", type=_positive, default=None, metavar="N", help="threads")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what another conversion wrote"
    )
    shards = parser.add_argument_group("webdataset")
    shards.add_argument(
        "--samples-per-shard",
        type=_positive,
        default=1000,
        metavar="N",
        help="most images of a shard (default 1000)",
    )
    shards.add_argument(
        "--shard-mib",
        type=_positive,
        metavar="MIB",
        help="size of a shard, measured by the files that the images come from",
    )
    shards.add_argument(
        "--keep-group-ids",
        action="store_true",
        help="write the ids of patients as they are, instead of numbers",
    )
    shards.add_argument("--seed", type=int, default=0, help="of the order (default 0)")
    lavis = parser.add_argument_group("lavis-json")
    lavis.add_argument(
        "--images",
        choices=("keep", "copy"),
        default="keep",
        help="name the images where they are (default), or copy them to OUT/images, named by id; "
        "what an id has of slashes, blanks and the like becomes _",
    )
    train.add_options_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Converts and tells what was done.

    Raises:
        ConfigError: If the configuration is wrong.
        DataError: If data are missing or broken, or OUT cannot be used.
        Interruption: On Ctrl-C.
    """
    prepare_process()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    data = _read(args)
    for note in data.notes:
        sys.stderr.write(f"note: {note}\n")
    write = _webdataset if args.to == "webdataset" else _lavis_json
    for line in write(args, data, resolve_path(args.out)):
        sys.stdout.write(f"{line}\n")
    return 0


def _read(args: argparse.Namespace) -> RunData:
    """Reads the data of a run as training does, or a folder in whatever format it is in."""
    from lavis_msmedcap.run_data import data_of, data_of_places

    if args.place.endswith((".yaml", ".yml")):
        given = [f"--{key} is for a folder" for key in ("format", "name") if getattr(args, key)]
        if given:
            raise ConfigError(given)
        data = data_of(args.place, args.options, to_store=True)
    else:
        if args.options:
            raise ConfigError(["--options are settings of a run configuration, and none is given"])
        data = data_of_places([Path(args.place)], args.format, name=args.name)
        sys.stderr.write(f"{data.banner}\n")
        if args.on_bad == "skip":
            _leave_out_missing(data)
    for report in data.reports:
        sys.stderr.write(f"{report.summary()}\n")
    return data


def _leave_out_missing(data: RunData) -> None:
    """Leaves out images that are not there, at most as many as training would.

    Raises:
        DataError: If more are missing, or one of val or test.
    """
    from lavis_msmedcap.datasets.readers.selection import drop_missing_images, missing_key

    there = []
    for split in dict.fromkeys(record.split for record in data.records):
        name, share = missing_key(split)
        key = f"{name} in a configuration of the data, and convert that"
        records = [record for record in data.records if record.split == split]
        there += drop_missing_images(records, share, key, data.reports[0])
    data.records = there


def _webdataset(args: argparse.Namespace, data: RunData, out: Path) -> Iterator[str]:
    from lavis_msmedcap.data_convert.check import check_shards
    from lavis_msmedcap.data_convert.images import ImageSettings
    from lavis_msmedcap.data_convert.plan import ShardSettings
    from lavis_msmedcap.data_convert.sections import shard_sections
    from lavis_msmedcap.data_convert.shards import write_shards

    settings = ShardSettings(
        samples=args.samples_per_shard,
        size=args.shard_mib and args.shard_mib * _MIB,
        seed=args.seed,
        images=ImageSettings(args.max_side, args.reencode),
        reading=data.reading,
        keep_group_ids=args.keep_group_ids,
    )
    try:
        report, shards = write_shards(
            data.records,
            out,
            settings,
            on_bad=args.on_bad,
            workers=_workers(args),
            overwrite=args.overwrite,
            progress=True,
        )
    except KeyboardInterrupt as error:
        raise Interruption(
            f"the shards in {out} are whole; the same command goes on where it was"
        ) from error
    yield from report.lines()
    if report.kept:
        yield f"{report.kept:,} shards were finished before and kept"
    compared = check_shards(shards, out, settings)
    yield f"read back {compared:,} samples: captions, ids and images are the same"
    if args.place.endswith((".yaml", ".yml")):
        yield "the same run on them is this configuration; what is set about ratios, processors and"
        yield "bad images of the old sections, and by --options, is to be set again:"
        names = [report.name for report in data.reports]
        yield from shard_sections(shards, out, resolve_path(args.place), names)
    else:
        yield "use them in a run configuration with"
        yield from shard_sections(shards, out)


def _lavis_json(args: argparse.Namespace, data: RunData, out: Path) -> Iterator[str]:
    from lavis_msmedcap.data_convert.earlier import IMAGES
    from lavis_msmedcap.data_convert.images import ImageSettings
    from lavis_msmedcap.data_convert.lavis_json import image_root, write_lavis_json

    report = write_lavis_json(
        data.records,
        out,
        images=args.images,
        settings=ImageSettings(args.max_side, args.reencode),
        reading=data.reading,
        skip_bad=args.on_bad == "skip",
        workers=_workers(args),
        overwrite=args.overwrite,
        progress=True,
    )
    yield from report.lines()
    for source in dict.fromkeys(record.source for record in data.records):
        own = [record for record in data.records if record.source == source]
        root = out / IMAGES if args.images == "copy" else image_root(own)
        yield f"use {source} with LAVIS' coco_caption or our coco2014_caption:"
        domains = dict.fromkeys(record.domain for record in own)
        if len(domains) == 1:  # the files do not tell it, and coco2014_caption takes general
            yield f"  domain: {next(iter(domains))}"
        yield "  build_info:"
        yield "    annotations:"
        for split in dict.fromkeys(record.split for record in own):
            yield f"      {split}: {{storage: {out / f'{source}_{split}.json'}}}"
        yield f"    images: {{storage: {root}}}"


def _workers(args: argparse.Namespace) -> int:
    return int(args.workers or min(8, os.cpu_count() or 1))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_positive.__name__ = "whole number above 0"  # argparse says "invalid … value"
