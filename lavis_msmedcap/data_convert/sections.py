"""The sections of a run configuration that read what a conversion has written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lavis_msmedcap.data_convert.plan import Shard
from lavis_msmedcap.datasets.records import SPLITS


def shard_sections(
    shards: Sequence[Shard], out: Path, base: Path | None = None, instead_of: Iterable[str] = ()
) -> Iterator[str]:
    """Yields lines of YAML: one section per data set, since ids and domains are those of one.

    Args:
        shards: All shards of a conversion.
        out: Where they are.
        base: Run configuration that the data were read with; the lines are one that changes
            nothing but the data.
        instead_of: Its data sets, which are taken out.
    """
    by_source: dict[str, dict[str, list[Shard]]] = {}
    for shard in shards:
        record = shard.pieces[0].record
        by_source.setdefault(record.source, {}).setdefault(record.split, []).append(shard)
    if base is not None:
        yield f"base: {json.dumps(str(base), ensure_ascii=False)}"
    yield "datasets:"
    names = list(instead_of)
    yield from (f"  {json.dumps(name)}: null" for name in names)
    for source, by_split in by_source.items():
        pieces = [piece for some in by_split.values() for shard in some for piece in shard.pieces]
        domains = {piece.record.domain for piece in pieces}
        if len(domains) > 1:
            yield f"  # {source}: images of two domains, convert them apart, under two names"
            continue
        splits = [split for split in SPLITS if split in by_split]
        places = ", ".join(f"{split}: {_place(by_split[split], out)}" for split in splits)
        names.append(_free_name(source, names))
        yield f"  {json.dumps(names[-1])}:"
        yield "    builder: webdataset_caption"
        yield '    type: "${oc.select:scale,default}"'  # not every configuration has scales
        yield f"    domain: {domains.pop()}"
        yield f"    splits: [{', '.join(splits)}]"
        yield f"    build_info: {{shards: {{{places}}}}}"


def _free_name(source: str, taken: Sequence[str]) -> str:
    """Names a section; shards that are converted again come from one of that name."""
    name = f"{source.replace('.', '_')}_shards"
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(free for free in itertools.chain([name], numbered) if free not in taken)


def _place(shards: Sequence[Shard], out: Path) -> str:
    """Names the shards of a split exactly: a pattern might fit those of another data set too."""
    first, last = shards[0].name, shards[-1].name
    stem, _, number = first.rpartition("-")
    name = first if len(shards) == 1 else f"{stem}-{{{number}..{last.rpartition('-')[2]}}}"
    return json.dumps(str(out / f"{name}.tar"), ensure_ascii=False)
