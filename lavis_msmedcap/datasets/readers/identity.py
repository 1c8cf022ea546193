"""Which records show the same image, and which must therefore stand in one split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from lavis_msmedcap.datasets.records import MedCapRecord
from lavis_msmedcap.imaging.places import parse_place

_VIEWS_OF_ONE_SCAN = ("frame", "slice")
# between the groups of an image whose rows name several: "p1 && p2"
_AND = " && "


def groups_of(record: MedCapRecord) -> list[str]:
    """Returns the articles or patients of a record: mostly one, none if it is unknown."""
    return [part for name in (record.group_id or "").split(_AND) if (part := name.strip())]


def joined_ids(names: Iterable[str]) -> str | None:
    """Returns the ``group_id`` of an image with several groups, each once; None if there is none.

    `groups_of` takes it apart again.
    """
    return _AND.join(dict.fromkeys(names)) or None


class ImageKeys:
    """Names images so that two ways of writing one file are one name.

    Links are followed in the folder's path only, once per folder: a hundred thousand look-ups of
    single files take minutes on a network drive.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def image(self, record: MedCapRecord) -> str:
        """Returns the name of a record's image, the part of a file that holds many included."""
        folder, slash, name = record.image.rpartition("/")
        folder += slash  # the root is another folder than none
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder).rstrip("/")
        return f"{self._folders[folder]}/{name}"

    def scan(self, record: MedCapRecord) -> str:
        """Returns the name of what is one recording: frames and slices of a file are one."""
        key = self.image(record)
        if "::" not in key:
            return key
        place = parse_place(key)
        return place.file if place.kind in _VIEWS_OF_ONE_SCAN else key


def joined_groups(records: Sequence[MedCapRecord]) -> list[str]:
    """Returns, for each record, the name of the group that it must be split with.

    Records of one ``group_id`` belong together, and so do those of one image, whatever their rows
    say: a patient may be written in one of an image's rows only, and an image may have an id per
    caption. The name is the first ``group_id`` in the alphabet, else the first ``image_id``; that
    of a group that nothing joins is its own, so what is split already stays where it is.
    """
    keys = ImageKeys()
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        parents.setdefault(node, node)
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    nodes = []
    for record in records:
        scan = ("scan", keys.scan(record))
        for name in groups_of(record) or [record.image_id]:
            parents[root(("name", name))] = root(scan)
        nodes.append(scan)
    names: dict[tuple[str, str], tuple[bool, str]] = {}
    roots = [root(node) for node in nodes]
    for record, top in zip(records, roots):
        # a group before an image, then by the alphabet
        groups = groups_of(record)
        own = (not groups, min(groups or [record.image_id]))
        names[top] = min(names.get(top, own), own)
    return [names[top][1] for top in roots]
