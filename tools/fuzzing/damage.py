"""Damage to files: of any kind, and such that gets past a format's first check."""

from __future__ import annotations

import copy
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any

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
