"""The whole check: records in, everything that is known about them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavis_msmedcap.data_check.cache import FactsCache
from lavis_msmedcap.data_check.captions import CaptionCheck, CaptionRules, check_captions
from lavis_msmedcap.data_check.choices import FIX_GROUP, FIX_IMAGE, FIX_NONE, NEAR
from lavis_msmedcap.data_check.duplicates import Duplicates, find_duplicates, fingerprints
from lavis_msmedcap.data_check.findings import PROBLEM, Finding, all_findings
from lavis_msmedcap.data_check.images import ImageFacts
from lavis_msmedcap.data_check.leaks import CAPTION, GROUP, SCAN, LeakReport, group_keys, leaks
from lavis_msmedcap.data_check.linking import Links
from lavis_msmedcap.data_check.scan import scan
from lavis_msmedcap.datasets.readers.identity import ImageKeys
from lavis_msmedcap.datasets.readers.report import ReadReport
from lavis_msmedcap.datasets.records import SPLITS, MedCapRecord
from lavis_msmedcap.imaging.read import DEFAULTS, ReadOptions


@dataclass(frozen=True)
class DataCheck:
    """What a check found.

    Attributes:
        title: What was checked.
        records: All records.
        facts: Of their images, in the same order.
        reports: What the readers counted, one per data set.
        leaks: Between splits.
        duplicates: Of images.
        captions: About captions.
        findings: All of it in sentences, worst first.
    """

    title: str
    records: Sequence[MedCapRecord]
    facts: Sequence[ImageFacts]
    reports: Sequence[ReadReport]
    leaks: LeakReport
    duplicates: Duplicates
    captions: CaptionCheck
    findings: Sequence[Finding]

    @property
    def clean(self) -> bool:
        """Whether nothing was found that hurts a training or its figures."""
        return all(finding.severity != PROBLEM for finding in self.findings)


def check_data(
    title: str,
    records: Sequence[MedCapRecord],
    reports: Sequence[ReadReport],
    rules: Mapping[str, CaptionRules],
    cache: FactsCache,
    *,
    workers: int = 0,
    distance: int = NEAR,
    reading: Mapping[tuple[str, str], ReadOptions] | None = None,
) -> DataCheck:
    """Checks records of any number of data sets together.

    Args:
        title: What is checked, for people.
        records: All records.
        reports: What the readers counted.
        rules: What training does with captions, by data set.
        cache: What is known of images already.
        workers: Processes; 0 for one per core.
        distance: Most bits in which the hashes of like pictures differ, see `likeness`.
        reading: How a run reads the images of a (data set, split), where not by default.

    Raises:
        Interruption: On Ctrl-C while images are read.
    """
    facts = _facts_of(records, reading or {}, cache, workers)
    prints = fingerprints(facts, records, distance)
    found_leaks = leaks(records, prints)
    duplicates = find_duplicates(prints, facts)
    captions = check_captions(records, rules)
    findings = all_findings(records, facts, reports, found_leaks, duplicates, captions)
    return DataCheck(title, records, facts, reports, found_leaks, duplicates, captions, findings)


def _facts_of(
    records: Sequence[MedCapRecord],
    reading: Mapping[tuple[str, str], ReadOptions],
    cache: FactsCache,
    workers: int,
) -> list[ImageFacts]:
    """Looks at the images of records, each as it is read in the run."""
    own = [reading.get((record.source, record.split), DEFAULTS) for record in records]
    found = {}
    for options in dict.fromkeys(own):
        images = [record.image for record, how in zip(records, own) if how == options]
        found[options] = scan(images, cache, workers, options)
    return [found[options][record.image] for record, options in zip(records, own)]


def reasons_to_drop(check: DataCheck, policy: str = FIX_GROUP) -> list[str]:
    """Says which records a clean manifest leaves out.

    Three things go: images that cannot be read or are of one single value; what leaks, where train
    yields to val and test, and val to test; and of images that stand in one split several times,
    all but the first. Test sets lose unreadable, constant and repeated images only.

    Records of equal pixels have their articles and patients in common: a copy that names no
    patient would otherwise stay in train while the one that names a test patient goes.

    Args:
        check: A check.
        policy: One of ``FIX_POLICIES``: what counts as a leak. ``group`` is a shared article,
            patient or scan, or a shared image; ``image`` only the latter; ``none`` nothing.

    Returns:
        A reason for each record, "" for those that stay.
    """
    reasons = [_unusable(fact) for fact in check.facts]
    for leak in check.leaks.leaks:
        of_group = leak.kind in (GROUP, SCAN)
        if policy == FIX_NONE or leak.kind == CAPTION or (of_group and policy == FIX_IMAGE):
            continue
        ranks = [SPLITS.index(check.records[index].split) for index in leak.indices]
        for index, rank in zip(leak.indices, ranks):
            if rank < max(ranks) and not reasons[index]:
                reasons[index] = f"leaks into {SPLITS[max(ranks)]}: same {_SAME[leak.kind]}"
    if policy == FIX_GROUP:
        _add_tied(reasons, check)
    seen: set[tuple[str, bytes]] = set()
    for index, (record, fact) in enumerate(zip(check.records, check.facts)):
        if reasons[index]:
            continue
        if (record.split, fact.pixels) in seen:
            reasons[index] = "repeats an image of its split"
        seen.add((record.split, fact.pixels))
    return reasons


def _add_tied(reasons: list[str], check: DataCheck) -> None:
    """Adds what copies of an image tie to a later split: their groups and scans are one."""
    sound = [not _unusable(fact) for fact in check.facts]
    links, scans = Links(len(reasons)), ImageKeys()
    links.join_equal(map(group_keys, check.records))
    links.join_equal([scans.scan(record)] for record in check.records)
    links.join_equal([fact.pixels] if use else [] for fact, use in zip(check.facts, sound))
    ranks = [SPLITS.index(record.split) for record in check.records]
    for members in links.groups():
        highest = max(ranks[index] for index in members)
        for index in members:
            if ranks[index] < highest and not reasons[index]:
                reasons[index] = f"leaks into {SPLITS[highest]}: tied to it by copies of an image"


_SAME = {
    "group": "article or patient",
    "scan": "scan",
    "file": "file",
    "pixels": "pixels",
    "near": "picture, saved again or scaled",
}


def _unusable(fact: ImageFacts) -> str:
    if fact.problem:
        return f"image: {fact.problem}"
    return "image: constant" if fact.constant else ""
