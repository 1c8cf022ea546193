"""What a check found, as sentences with figures, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lavis_msmedcap.data_check import captions, images, leaks
from lavis_msmedcap.data_check.captions import CaptionCheck
from lavis_msmedcap.data_check.duplicates import Duplicates
from lavis_msmedcap.data_check.images import ImageFacts
from lavis_msmedcap.data_check.leaks import LeakReport
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import MedCapRecord

PROBLEM, WARNING, NOTE = "problem", "warning", "note"
SEVERITIES = (PROBLEM, WARNING, NOTE)

TINY_SIDE = 32  # pixels: less than this
HUGE_PIXELS = 40_000_000  # more than this
EXTREME_ASPECT = 8.0  # more than this: the CLIP view squeezes a picture to a square

FETCH = "fetch them again, or take them out with --fix"
ELSEWHERE = (
    "fetch them, name their folder (--images; the key build_info.images of a configuration), or "
    "take them out with --fix"
)
LEAVE_OUT = "--fix takes the training images out"
# reasons of readers and builders that somebody asked for
_ASKED_FOR = ("above max_samples", "in split ", "filtered by ", "outside the split fractions")
_COUNTED_HERE = ("image missing",)


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        severity: ``PROBLEM`` (hurts a training or its figures), ``WARNING`` or ``NOTE``.
        kind: Fixed name, for programs: "image: truncated", "leak: group test/train".
        text: What it is, for people, without figures.
        count: How many records (or entries of a file) it concerns.
        of: Out of how many.
        by: ``count`` by data set and split; for leaks, by the two data sets.
        indices: The records concerned, as far as there are any.
        cure: What to do.
    """

    severity: str
    kind: str
    text: str
    count: int
    of: int
    by: dict[str, int]
    indices: tuple[int, ...] = ()
    cure: str = ""


def all_findings(
    records: Sequence[MedCapRecord],
    facts: Sequence[ImageFacts],
    reports: Sequence[ReadReport],
    found_leaks: LeakReport,
    duplicates: Duplicates,
    found_captions: CaptionCheck,
) -> list[Finding]:
    """Puts together everything that is worth a line.

    Args:
        records: All records.
        facts: Of their images.
        reports: What readers left out.
        found_leaks: Between splits.
        duplicates: Within and between splits.
        found_captions: About captions.
    """
    found = [
        *_image_findings(records, facts),
        *_leak_findings(records, found_leaks),
        *_group_findings(records),
        *_duplicate_findings(records, duplicates),
        *_caption_findings(records, found_captions),
        *_reader_findings(reports),
    ]
    return sorted(found, key=lambda f: (SEVERITIES.index(f.severity), -f.count))


# --- images --------------------------------------------------------------------------------------

_ODD_IMAGES: tuple[tuple[str, str, str, str, Callable[[ImageFacts], bool]], ...] = (
    (
        WARNING,
        "constant",
        "images of one single value",
        "--fix takes them out",
        lambda fact: fact.constant,
    ),
    (
        WARNING,
        "tiny",
        f"images with a side of less than {TINY_SIDE} pixels",
        "icons or thumbnails? look at them",
        lambda fact: min(fact.width, fact.height) < TINY_SIDE,
    ),
    (
        NOTE,
        "huge",
        f"images of more than {HUGE_PIXELS // 1_000_000} million pixels",
        "they slow every epoch down: store them smaller",
        lambda fact: fact.width * fact.height > HUGE_PIXELS,
    ),
    (
        NOTE,
        "extreme aspect ratio",
        f"images more than {EXTREME_ASPECT:g} times as long as wide",
        "the CLIP view squeezes them to a square: crop them",
        lambda fact: (
            max(fact.width, fact.height) > EXTREME_ASPECT * max(min(fact.width, fact.height), 1)
        ),
    ),
)


def _image_findings(
    records: Sequence[MedCapRecord], facts: Sequence[ImageFacts]
) -> Iterator[Finding]:
    for problem in images.PROBLEMS:
        indices = [i for i, fact in enumerate(facts) if fact.problem == problem]
        cure = ELSEWHERE if problem == images.MISSING else FETCH
        text = _IMAGE_TEXT[problem]
        if indices:
            yield _of_records(PROBLEM, f"image: {problem}", text, indices, records, cure)
    sound = [i for i, fact in enumerate(facts) if not fact.problem]
    for severity, kind, text, cure, is_so in _ODD_IMAGES:
        indices = [i for i in sound if is_so(facts[i])]
        if indices:
            yield _of_records(severity, f"image: {kind}", text, indices, records, cure)


_IMAGE_TEXT = {
    images.MISSING: "image files that do not exist",
    images.EMPTY: "image files of 0 bytes",
    images.TRUNCATED: "truncated image files",
    images.WEB_PAGE: "files that are a web page or XML, not an image",
    images.NOT_AN_IMAGE: "files that are not an image",
    images.TOO_LARGE: "images too large to decode safely",
    images.CRASHED: "images that crash their decoder",
    images.BROKEN: "images that cannot be decoded",
}


# --- leaks and duplicates ------------------------------------------------------------------------

_LEAK_TEXT = {
    leaks.GROUP: "from an article or patient that {other} has images of",
    leaks.SCAN: "from a scan that {other} has other slices or frames of",
    leaks.FILE: "that {other} has too, byte for byte",
    leaks.PIXELS: "that {other} has too, the same pixels in another file",
    leaks.NEAR: "that {other} has too, saved again, scaled or recoloured",
    leaks.CAPTION: "with a caption that {other} has too",
}


def _leak_findings(records: Sequence[MedCapRecord], found: LeakReport) -> Iterator[Finding]:
    for overlap in found.overlaps:
        weak = overlap.kind == leaks.CAPTION
        text = _LEAK_TEXT[overlap.kind].format(other=overlap.other)
        cure = "" if weak else LEAVE_OUT
        if overlap.other != "train" and not weak:
            cure = (
                f"--fix takes the {overlap.other if overlap.other != 'test' else 'val'} images out"
            )
        indices = {
            i
            for leak in found.of_kind(overlap.kind)
            if {overlap.split, overlap.other} <= {records[i].split for i in leak.indices}
            for i in leak.indices
            if records[i].split in (overlap.split, overlap.other)
        }
        yield Finding(
            WARNING if weak else PROBLEM,
            f"leak: {overlap.kind} {overlap.split}/{overlap.other}",
            f"{overlap.split} images {text}",
            overlap.images,
            overlap.of,
            {
                f"{own} {overlap.split} in {theirs} {overlap.other}": count
                for (own, theirs), count in overlap.datasets.most_common()
            },
            tuple(sorted(indices)),
            cure,
        )


def _group_findings(records: Sequence[MedCapRecord]) -> Iterator[Finding]:
    several = [i for i, record in enumerate(records) if len(leaks.group_keys(record)) > 1]
    if several:
        text = "images whose rows name several articles or patients"
        cure = "correct the rows; until then all of them must stand in one split"
        yield _of_records(WARNING, "group: several", text, several, records, cure)


def _duplicate_findings(
    records: Sequence[MedCapRecord], duplicates: Duplicates
) -> Iterator[Finding]:
    kinds = (
        (WARNING, "file", "repeated within a split, byte for byte", duplicates.file),
        (WARNING, "pixels", "repeated within a split in another file", duplicates.pixels),
        (NOTE, "near", "that resemble another one of their split closely", duplicates.near),
    )
    for severity, kind, text, groups in kinds:
        extra = [index for group in groups for index in _later_of_split(group, records)]
        if extra:
            cure = "--fix keeps the first of each" if severity == WARNING else "look at them"
            name = f"duplicate: {kind}"
            yield _of_records(severity, name, f"images {text}", sorted(extra), records, cure)


def _later_of_split(group: Sequence[int], records: Sequence[MedCapRecord]) -> Iterator[int]:
    seen: set[str] = set()
    for index in group:
        if records[index].split in seen:
            yield index
        seen.add(records[index].split)


# --- captions and readers ------------------------------------------------------------------------

_CAPTION_KINDS = {
    captions.EMPTY: (WARNING, "captions with nothing in them", "leave these images out"),
    captions.GARBLED: (
        WARNING,
        "captions in a broken encoding",
        "read the file in the encoding that it was written in",
    ),
    captions.SHORT: (NOTE, f"captions of fewer than {captions.SHORT_WORDS} words", ""),
    captions.LONG: (NOTE, f"captions of more than {captions.LONG_WORDS} words", ""),
    captions.CUT_WORDS: (NOTE, "captions that max_words cuts", "raise text_processor.max_words"),
    captions.CUT_TOKENS: (NOTE, "captions that max_txt_len cuts", "raise model.max_txt_len"),
    captions.BREAKS: (NOTE, "captions with line breaks", "training reads them as spaces"),
    captions.FOREIGN: (NOTE, "captions that are perhaps not in English", "look at them"),
    captions.REPEATED: (NOTE, "captions that stand on several images", ""),
    captions.SIDE: (NOTE, "captions that name a side", "so never flip these images"),
    captions.NON_ASCII: (NOTE, "captions with characters beyond ASCII", ""),
}


def _caption_findings(records: Sequence[MedCapRecord], found: CaptionCheck) -> Iterator[Finding]:
    for kind, (severity, text, cure) in _CAPTION_KINDS.items():
        indices = found.odd.get(kind)
        if indices:
            words = f"images with {text}"
            yield _of_records(severity, f"caption: {kind}", words, indices, records, cure)


def _reader_findings(reports: Sequence[ReadReport]) -> Iterator[Finding]:
    for report in reports:
        for reason, count in report.left_out().items():
            if reason in _COUNTED_HERE:
                continue
            asked = reason.startswith(_ASKED_FOR)
            yield Finding(
                NOTE if asked else WARNING,
                f"left out: {reason}",
                f"entries of {report.name} left out: {reason}",
                count,
                report.n_read,
                {report.name: count},
            )


def _of_records(
    severity: str,
    kind: str,
    text: str,
    indices: Sequence[int],
    records: Sequence[MedCapRecord],
    cure: str = FETCH,
) -> Finding:
    by = Counter(f"{records[i].source} {records[i].split}" for i in indices)
    return Finding(
        severity,
        kind,
        text,
        len(indices),
        len(records),
        dict(by.most_common()),
        tuple(indices),
        cure,
    )
