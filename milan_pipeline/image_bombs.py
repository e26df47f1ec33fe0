"""What a file may ask of a decoder beside pixels: scans of a JPEG without end, extras of a PNG.

Both are looked for in the bytes alone, before anything is decoded.
"""

import struct
from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"
START_OF_SCAN = b"\xff\xda"
SEQUENTIAL = (0xC0, 0xC1, 0xC9)
FRAMES = (*SEQUENTIAL, 0xC2, 0xCA)
MOST_FRAMES = 2**31
LEAST_ACTL = 8
"""Bytes that an announcement of an animation has to say; a shorter one is a damage."""
AROUND, CHECKSUM = 12, 4
"""Bytes of a chunk of a PNG beside its content: length, kind and checksum; and of the latter."""
SMALL = 2**18
"""A scan of fewer pixels costs as much as of so many."""


def scans_of_jpeg(data: bytes) -> int:
    """Return how many passes over the image a JPEG asks for: an upper bound, and at least 1.

    Counting takes a tenth of the time that decoding does, and is spared a JPEG whose first scan has
    all colours whole: decoders refuse a second one.
    """
    return 1 if _is_whole_in_one_scan(data) else max(1, data.count(START_OF_SCAN))


def _is_whole_in_one_scan(data: bytes) -> bool:
    colours = 0
    for marker, at in _segments(data):
        if marker in FRAMES:
            colours = data[at + 9] if marker in SEQUENTIAL and at + 9 < len(data) else 0
        if marker == START_OF_SCAN[1]:
            return at + 4 < len(data) and 0 < colours == data[at + 4]
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield marker and place of each segment of a JPEG's header, while they follow one another."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and 0xC0 <= data[at + 1] < 0xFF:
        yield data[at + 1], at
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


def plain_png(data: bytes) -> bytes:
    """Return a PNG without what does nothing for its first frame, but warns or may take long.

    That is the announcement of an animation unless there is one, sound and in time; and all colour
    profiles but the first, each of which may unfold to a megabyte. The rest is left as it is,
    damages included.
    """
    found: dict[str, list[tuple[int, int]]] = {"early": [], "late": [], "profiles": []}
    when = "early"
    for kind, at, length in chunks(data):
        if kind == b"IDAT":
            when = "late"
        elif kind == b"acTL" and length >= LEAST_ACTL:
            found[when].append((at, at + AROUND + length))
        elif kind == b"iCCP":
            found["profiles"].append((at, at + AROUND + length))
    early = found["early"]
    if len(early) == 1 and 0 < _frames_at(data, early[0][0]) <= MOST_FRAMES:
        early = []
    kept, start = [], 0
    for at, end in sorted([*early, *found["late"], *found["profiles"][1:]]):
        kept.append(data[start:at])
        start = end
    return b"".join([*kept, data[start:]]) if kept else data


def _frames_at(data: bytes, announcement: int) -> int:
    return int.from_bytes(data[announcement + 8 : announcement + 12])


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and length of the content of each chunk of a PNG.

    The last one may lack its checksum: decoders look at the content before that.
    """
    at = len(PNG_START)
    while at + AROUND <= len(data) + CHECKSUM:
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + AROUND + length > len(data) + CHECKSUM:
            return
        yield kind, at, length
        at += AROUND + length
