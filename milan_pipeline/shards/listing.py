"""Read a manifest part by part: of a million shards and four views it takes gigabytes.

`Manifest.to_bytes` begins and ends each shard's row by a line of its own, and no string of JSON
holds a line break, so the text is cut there. A manifest that was formatted anew is read whole.
"""

import hashlib
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any, BinaryIO, NamedTuple

import msgspec

from milan_pipeline.core.schema import DocumentError, parsed

PART_BYTES = 256 << 10
ROWS, OWN_HASH = "shards", "sha256"
_BEFORE, _END_OF_ROW, _END_OF_LAST = b'\n "shards": [', b"\n  },", b"\n  }\n ]"
Rows = list[Any]


class Listing(NamedTuple):
    """A manifest without its shards.

    Attributes:
        document: all else, its own hash included.
        sha256: the hash of what was read, which should be its own.
        error: the first error of whoever took the rows.
    """

    document: dict[str, Any]
    sha256: str
    error: DocumentError | None


def scan(stream: BinaryIO, take: Callable[[Rows], None]) -> Listing:
    """Hand on the rows of a manifest, some thousands at a time; nothing is checked yet.

    Args:
        stream: the manifest.
        take: called with rows; what it raises is reported, and it is called no more.

    Raises:
        DocumentError: it is no JSON, or no manifest.
    """
    text = b""
    while _BEFORE not in text:
        part = stream.read(PART_BYTES)
        if not part:
            return _scan_whole(text, take)
        text += part
    head, _, text = text.partition(_BEFORE)
    document = parsed(head.rstrip(b",") + b"}", dict[str, Any])
    digest = _Digest(document)
    error = None
    parts = _cut(stream, text)
    while True:
        try:
            rows_text = next(parts)
        except StopIteration as end:
            rest = parsed(b"{" + end.value.lstrip(b",\n "), dict[str, Any])
            break
        rows = digest.add(rows_text)
        if error is None:
            error = _taken(rows, take)
    if any(name < ROWS and name != OWN_HASH for name in rest) or rest.keys() & document.keys():
        raise DocumentError("what its shards have in common comes after them")
    document |= rest
    return Listing(document, digest.finished(document), error)


def content_sha256(document: Mapping[str, Any]) -> str:
    """Return the hash of a manifest's content: of its compact form with sorted keys."""
    return hashlib.sha256(_compact(document).encode()).hexdigest()


def _scan_whole(text: bytes, take: Callable[[Rows], None]) -> Listing:
    document = parsed(text, dict[str, Any])
    content = {name: value for name, value in document.items() if name != OWN_HASH}
    rows = document.pop(ROWS, None)
    if not isinstance(rows, list):
        raise DocumentError("it has no list of shards")
    return Listing(document, content_sha256(content), _taken(rows, take))


def _cut(stream: BinaryIO, text: bytes) -> Generator[bytes, None, bytes]:
    """Yield the text of whole rows, and return what follows the list of them."""
    text = text or stream.read(PART_BYTES)
    if text.startswith(b"]"):
        return text[1:] + stream.read()
    while _END_OF_LAST not in text:
        whole, end, begun = text.rpartition(_END_OF_ROW)
        if end:
            yield whole + end[:-1]
            text = begun
        part = stream.read(PART_BYTES)
        if not part:
            raise DocumentError("it ends within its shards")
        text += part
    rows, _, rest = text.partition(_END_OF_LAST)
    yield rows + b"\n  }"
    return rest + stream.read()


class _Digest:
    """The hash of a document whose rows come part by part."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        before = {n: value for n, value in document.items() if n < ROWS and n != OWN_HASH}
        self._sha256 = hashlib.sha256(_compact(before)[:-1].encode())
        self._sha256.update(b'%s"shards":[' % (b"," if before else b""))
        self._between = b""

    def add(self, text: bytes) -> Rows:
        """Read rows and add them."""
        # msgspec is five times as fast, but writes other escapes, and reads no lone surrogates. It
        # writes some floats otherwise, too (1e16, not 1e+16), so rows must hold none.
        if text.isascii() and b"\\" not in text and b"\x7f" not in text:
            try:
                rows: Rows = msgspec.json.decode(b"[" + text + b"]")
            except (msgspec.DecodeError, RecursionError) as error:
                raise DocumentError(str(error)) from error
            compact = msgspec.json.encode(rows, order="sorted")
        else:
            rows = parsed(b"[" + text + b"]", list[Any])
            compact = _compact(rows).encode()
        self._sha256.update(self._between + compact[1:-1])
        self._between = b","
        return rows

    def finished(self, document: Mapping[str, Any]) -> str:
        """Add what comes after the rows, and return the hash."""
        after = {name: value for name, value in document.items() if name > ROWS}
        self._sha256.update(f"],{_compact(after)[1:]}".encode() if after else b"]}")
        return self._sha256.hexdigest()


def _taken(rows: Rows, take: Callable[[Rows], None]) -> DocumentError | None:
    try:
        take(rows)
    except DocumentError as error:
        return error
    return None


def _compact(document: Any) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
