"""Picture files without what they say besides the picture, their compressed pixels untouched.

Cameras, scanners and PACS exports write names, dates, places and thumbnails of the uncropped
picture into JPEG, PNG and WebP files. What is kept is what decoding needs, and numbers about
resolution and gamma; EXIF, XMP, IPTC, comments, colour profiles, thumbnails and whatever follows
the end of the picture are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_JPEG_END, _JPEG_SCAN, _APP0, _APP14, _APP15, _COMMENT = 0xD9, 0xDA, 0xE0, 0xEE, 0xEF, 0xFE
_JPEG_ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a length
_JFIF_HEAD = 12  # bytes: identifier, version and resolution; the thumbnail's size follows
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs")
_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"ALPH")
_WEBP_ALPHA = 0x10  # the one flag of VP8X that is about the pixels of a still picture


def without_metadata(data: bytes, form: str) -> bytes:
    """Takes everything but the picture out of a file.

    Args:
        data: The file.
        form: "JPEG", "PNG" or "WEBP", of one frame.

    Returns:
        The file, the same bytes if there was nothing to take out.

    Raises:
        ValueError: If the file is not built as its format says.
    """
    try:
        return _CLEANERS[form](data)
    except (IndexError, struct.error) as error:
        raise ValueError(f"the {form} file ends in the middle of a part") from error


# --- JPEG ----------------------------------------------------------------------------------------


def _clean_jpeg(data: bytes) -> bytes:
    if data[:2] != b"\xff\xd8":
        raise ValueError("no JPEG file")
    return b"\xff\xd8" + b"".join(_jpeg_parts(data))


def _jpeg_parts(data: bytes) -> Iterator[bytes]:
    """Yields the segments to keep, each scan with the coded pixels that follow it."""
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        while data[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = data[at + 1]
        if marker == _JPEG_END:
            yield b"\xff\xd9"
            return
        if marker in _JPEG_ALONE:
            end = at + 2
        else:
            end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker == _JPEG_SCAN:
            end = _end_of_scan(data, end)
        yield _kept_segment(marker, data[at:end])
        at = end


def _end_of_scan(data: bytes, start: int) -> int:
    """Returns where the coded pixels end: at the next marker that does not belong to them."""
    at = data.find(b"\xff", start)
    while at >= 0 and (data[at + 1] == 0 or data[at + 1] in _JPEG_ALONE):
        at = data.find(b"\xff", at + 2)
    if at < 0:
        raise ValueError("no end mark")
    return at


def _kept_segment(marker: int, segment: bytes) -> bytes:
    if marker == _APP0:
        if segment[4:9] != b"JFIF\0":
            return b""
        head = segment[4 : 4 + _JFIF_HEAD] + b"\0\0"  # a thumbnail of no pixels
        return b"\xff\xe0" + struct.pack(">H", len(head) + 2) + head
    # Adobe's segment says which colours the numbers are
    if marker == _APP14 and segment[4:9] == b"Adobe":
        return segment
    return b"" if _APP0 < marker <= _APP15 or marker == _COMMENT else segment


# --- PNG -----------------------------------------------------------------------------------------


def _clean_png(data: bytes) -> bytes:
    if data[:8] != _PNG_START:
        raise ValueError("no PNG file")
    return _PNG_START + b"".join(_png_chunks(data))


def _png_chunks(data: bytes) -> Iterator[bytes]:
    at, name = len(_PNG_START), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError("a chunk is cut off")
        if name[:1].isupper() or name in _PNG_KEPT:  # a capital letter: needed for decoding
            yield data[at:end]
        at = end


# --- WebP ----------------------------------------------------------------------------------------


def _clean_webp(data: bytes) -> bytes:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError("no WebP file")
    inside = b"WEBP" + b"".join(_webp_chunks(data))
    return b"RIFF" + struct.pack("<I", len(inside)) + inside


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    at, end_of_file = 12, 8 + struct.unpack_from("<I", data, 4)[0]
    while at < end_of_file:
        name, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        if at + 8 + length > len(data):
            raise ValueError("a chunk is cut off")
        if name == b"VP8X":
            yield data[at : at + 8] + bytes([data[at + 8] & _WEBP_ALPHA]) + data[at + 9 : end]
        elif name in _WEBP_PIXELS:
            yield data[at:end].ljust(end - at, b"\0")
        elif name == b"ANMF":
            raise ValueError("an animation")
        at = end


_CLEANERS = {"JPEG": _clean_jpeg, "PNG": _clean_png, "WEBP": _clean_webp}
