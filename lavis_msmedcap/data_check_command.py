"""``msmedcap data check``: is a data set fit to train on, and does it leak."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lavis_msmedcap import train
from lavis_msmedcap.common.errors import ConfigError, DataError
from lavis_msmedcap.common.startup import prepare_process
from lavis_msmedcap.data_check.choices import FIX_GROUP, FIX_POLICIES, MAX_NEAR, NEAR

HELP = "decode every image; find dirt, duplicates, and leaks between train and test"
EXAMPLES = """
Reads what a training would read, changes nothing, and sends nothing anywhere.

examples:
  msmedcap data check projects/msmedcap/caption.yaml --options scale=paper
                                 every data set of a run, with its limits on captions
  msmedcap data check /data/roco
                                 a folder or file in a format that is recognized: ROCO v1 (tree or
                                 Kaggle's CSV), ROCOv2, MedICaT, COCO captions, a table of your own
  msmedcap data check /data/roco /data/rocov2 --html check.html --json check.json
                                 several together: leaks from one into the other as well
  msmedcap data check ward/tables/all.csv --images ward
                                 a table whose images lie elsewhere than beside it; a training finds
                                 them with the key build_info.images of its data set
  msmedcap data check /data/roco --fix clean.jsonl
                                 writes a manifest without what is broken, repeated or leaking, and
                                 clean.dropped.jsonl with the rest; `msmedcap data check
                                 clean.jsonl` then finds no problems

what leaks: images of one article or patient in two splits (PMC ids and DOIs are compared across
data sets), slices or frames of one scan, the same file, the same pixels, and pictures that were
saved again, scaled or recoloured. --fix lets train yield to val and test, and val to test. Tests
lose no image by a leak, only those that cannot be read, are of one single value, or stand in the
test set twice.

What is found out about a sound image is kept in the cache, so that a second check is quick; after
Ctrl-C the same command goes on where it was.

exit code: 0 clean, 1 problems that hurt a training or its figures, 2 wrong input
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``msmedcap data check``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument(
        "inputs", nargs="+", metavar="CONFIG|DIR", help="run configuration (YAML), folder or file"
    )
    train.add_options_argument(parser)
    parser.add_argument("--format", metavar="NAME", help="format of folders, instead of looking")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder that the image names of a table or COCO file are relative to (default: that "
        "of the table; the key build_info.images of a configuration)",
    )
    parser.add_argument(
        "--workers", type=_number(0), default=0, metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument(
        "--near",
        type=_number(0, MAX_NEAR),
        default=NEAR,
        metavar="BITS",
        help=f"how far the hashes of like pictures may differ, 0 to {MAX_NEAR} (default {NEAR})",
    )
    parser.add_argument("--fresh", action="store_true", help="forget what earlier checks found out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, for programs")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with images to look at")
    parser.add_argument("--fix", type=Path, metavar="OUT", help="write a clean manifest (jsonl)")
    parser.add_argument(
        "--fix-leaks",
        choices=FIX_POLICIES,
        default=FIX_GROUP,
        help="what --fix takes out of train and val as leaking: images of articles, patients or "
        "scans of the test set and the test images themselves (group, the default), the latter "
        "only (image), or nothing (none)",
    )


def _number(low: int, high: int | None = None) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
            upper = "or more" if high is None else f"to {high}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {low} {upper}")
        return int(text)

    return number


def run(args: argparse.Namespace) -> int:
    """Checks data sets and writes what was asked for.

    Returns:
        1 if something was found that hurts a training or its figures, else 0.

    Raises:
        ConfigError: If a configuration cannot be used.
        DataError: If a data set cannot be read, or an output not be written.
        Interruption: On Ctrl-C.
    """
    prepare_process()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from lavis_msmedcap.data_check.cache import FactsCache, default_path
    from lavis_msmedcap.data_check.check import check_data
    from lavis_msmedcap.data_check.manifest import refuse_existing
    from lavis_msmedcap.data_check.text import describe, to_plain

    if args.fix:
        refuse_existing(args.fix)
    data = _read(args.inputs, args.options, args.format, args.images)
    for note in data.notes:
        sys.stderr.write(f"note: {note}\n")
    cache = FactsCache(default_path(), args.fresh)
    try:
        found = check_data(
            data.banner,
            data.records,
            data.reports,
            data.rules,
            cache,
            workers=args.workers,
            distance=args.near,
            reading=data.reading,
        )
    finally:
        cache.close()
    sys.stdout.write(describe(found))
    if args.json:
        _write_json(args.json, to_plain(found))
    if args.html:
        from lavis_msmedcap.data_check.page import write_check

        sys.stdout.write(f"page: {write_check(args.html, found)}\n")
    if args.fix:
        _fix(args.fix, args.fix_leaks, found)
    return 0 if found.clean else 1


def _read(
    inputs: Sequence[str], options: Sequence[str], format_name: str | None, images: Path | None
) -> Any:
    """Reads all inputs; data sets of one name from several inputs are told apart."""
    from lavis_msmedcap.run_data import RunData, data_of, data_of_places

    configs = [text for text in inputs if text.endswith((".yaml", ".yml"))]
    if options and not configs:
        raise ConfigError(["--options are settings of a run configuration, and none is given"])
    if images is not None and configs:
        raise ConfigError(
            ["--images is for tables; of a configuration, set datasets.<name>.build_info.images"]
        )
    places = _one_data_set_each(
        [Path(text) for text in dict.fromkeys(inputs) if text not in configs]
    )
    parts = [data_of(text, options) for text in dict.fromkeys(configs)]
    parts += [
        data_of_places(together, format_name, images=images, name=name) for name, together in places
    ]
    whole = RunData("; ".join(part.banner for part in parts))
    for part in parts:
        for report in part.reports:
            _tell_apart(report.name, part, {known.name for known in whole.reports})
        whole.records += part.records
        whole.reports += part.reports
        whole.rules.update(part.rules)
        whole.reading.update(part.reading)
        whole.notes += part.notes
    return whole


def _tell_apart(name: str, part: Any, taken: set[str]) -> None:
    from dataclasses import replace

    free, number = name, 2
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    if free == name:
        return
    part.records = [replace(r, source=free) if r.source == name else r for r in part.records]
    for report in part.reports:
        report.name = free if report.name == name else report.name
    part.reading = {(free if n == name else n, s): how for (n, s), how in part.reading.items()}
    if name in part.rules:
        part.rules[free] = part.rules.pop(name)


def _one_data_set_each(places: Sequence[Path]) -> list[tuple[str | None, list[Path]]]:
    """Puts files of one folder together that only the split in their names tells apart.

    As ``ward_a_train.csv`` and ``ward_a_test.csv``; apart, their patients would count as those of
    different data sets, and together with ``ward_b_test.csv`` those of two wards as the same.

    Returns:
        Names of data sets, None for the usual one, and their places.
    """
    from lavis_msmedcap.common.paths import resolve_path
    from lavis_msmedcap.datasets.readers.files import name_without_split, split_word

    together: dict[tuple[Path, str, str], list[Path]] = {}
    for place in places:
        resolved = resolve_path(place)
        if resolved.is_file() and split_word(resolved.name):
            key = (resolved.parent, name_without_split(resolved.stem), resolved.suffix)
        else:
            key = (resolved, "", "")
        together.setdefault(key, []).append(place)
    return [
        (name if name and len(files) > 1 else None, files)
        for (_, name, _), files in together.items()
    ]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"--json: {path} cannot be written: {error}") from error


def _fix(path: Path, policy: str, found: Any) -> None:
    from collections import Counter

    from lavis_msmedcap.data_check.check import reasons_to_drop
    from lavis_msmedcap.data_check.manifest import clean, write_manifest

    result = clean(found.records, reasons_to_drop(found, policy))
    undivided = [report.name for report in found.reports if report.undivided]
    splits = len(undivided) < len(found.reports)
    other = write_manifest(path, result, splits=splits)
    sys.stdout.write(f"clean manifest: {path}, {len(result.kept):,} images\n")
    if not splits:
        sys.stdout.write("  without splits, as the data tell none: training draws shares\n")
    elif undivided:
        sys.stdout.write(
            f"  {', '.join(undivided)}: no splits told, so written as train beside the splits of "
            "others; for a training to draw shares, write a manifest without the others\n"
        )
    for reason, count in Counter(reason for _, reason in result.dropped).most_common():
        sys.stdout.write(f"  {count:,} left out: {reason}\n")
    if result.renamed:
        sys.stdout.write(f"  {result.renamed:,} image ids stood for several images, renamed\n")
    if result.dropped:
        sys.stdout.write(f"  what was left out, with reasons: {other}\n")
