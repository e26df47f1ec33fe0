"""Read whole shards in the order of their rows: few large range reads, ahead, in threads.

Samples that lie near each other are fetched together, as one span, with the tar headers and small
members between them. Local and remote shards are read in the same way.
"""

import contextlib
import dataclasses
import functools
import logging
import posixpath
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import xxhash
from numpy.typing import NDArray

from milan_pipeline import storage
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.errors import DataError, TruncatedError
from milan_pipeline.images.budget import Skipped
from milan_pipeline.images.formats import IMAGE_EXTENSIONS
from milan_pipeline.shards.index import index_bytes, index_table
from milan_pipeline.shards.labels import Label, label_of
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.random_access import (
    checked,
    explaining_missing,
    not_as_listed,
)
from milan_pipeline.shards.tar_stream import HashingFile, stream_members
from milan_pipeline.shards.writer import Sample, listed_shard, refuse_duplicates

logger = logging.getLogger(__name__)

MEMBER_NAME = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)", re.DOTALL)
"""How WebDataset splits a member's name into key and extension; it skips other names.

Hidden files, such as `cat/._0.jpg` of macOS, are skipped here as well.
"""

NO_EXTENSION = "has no key and ending in its name"
"""Why a member is left out that belongs to no sample, such as `._0.jpg`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spans:
    """How rows that lie near each other are fetched together.

    Attributes:
        most: bytes that one read fetches at most, unless a single sample is larger.
        gap: bytes between two samples that are fetched with them rather than skipped.
        waiting: spans in memory beside those that threads are fetching: the one whose rows are
            handed out, and the next.
    """

    most: int = 8 << 20
    gap: int = 16 << 10
    waiting: int = 2


class _Span(NamedTuple):
    """Rows of a shard that lie close together: (offset, length, xxh3) each, in row order."""

    shard: int
    url: str
    first_row: int
    rows: list[tuple[int, int, int]]

    @property
    def start(self) -> int:
        return self.rows[0][0]

    @property
    def stop(self) -> int:
        return _end(self.rows[-1])


def read_rows(
    shards: Iterable[tuple[str, NDArray[Any]]],
    *,
    threads: int = 4,
    spans: Spans = Spans(),
) -> Generator[tuple[int, int, bytes], None, None]:
    """Yield every row's bytes, verified: (shard number, row number, bytes), in order.

    At most `threads + spans.waiting` spans are in memory, also where one shard ends and the next
    begins.

    Args:
        shards: (URL, index) of each; consumed lazily, in the calling thread.
        threads: reads at a time; 0 reads when a row's turn comes.
        spans: how rows are grouped into reads.

    Raises:
        DataError: a sample's bytes are not what the index says, or the shard ends before them.
        MissingDataError: a shard does not exist.
        StorageError: it cannot be read.
    """
    fetched = ordered_map(
        _fetched, _cut(shards, spans), workers=threads, ahead=threads + spans.waiting
    )
    with contextlib.closing(fetched):
        for span, data in fetched:
            for number, (offset, length, digest) in enumerate(span.rows, start=span.first_row):
                at = offset - span.start
                sample = checked(data[at : at + length], span.url, offset, length, digest)
                yield span.shard, number, sample


def _cut(shards: Iterable[tuple[str, NDArray[Any]]], spans: Spans) -> Iterator[_Span]:
    """Cut each shard's rows into runs without a large gap, none above `spans.most` bytes."""
    for shard, (url, table) in enumerate(shards):
        columns = (table[name].tolist() for name in ("offset", "length", "xxh3"))
        rows: list[tuple[int, int, int]] = []
        for number, row in enumerate(zip(*columns, strict=True)):
            if rows and not _belongs(row, rows, spans):
                yield _Span(shard, url, number - len(rows), rows)
                rows = []
            rows.append(row)
        if rows:
            yield _Span(shard, url, len(table) - len(rows), rows)


def _belongs(row: tuple[int, int, int], rows: list[tuple[int, int, int]], spans: Spans) -> bool:
    gap = row[0] - _end(rows[-1])
    return 0 <= gap <= spans.gap and _end(row) - rows[0][0] <= spans.most


def _end(row: tuple[int, int, int]) -> int:
    offset, length, _ = row
    return offset + length


def _fetched(span: _Span) -> tuple[_Span, bytes]:
    try:
        with explaining_missing(span.url):
            return span, storage.read_bytes(span.url, span.start, span.stop - span.start)
    except TruncatedError as error:
        what = f"it ends before byte {span.stop}, where the index has a sample"
        raise not_as_listed(span.url, what) from error


def index_shard(
    url: str,
    folder: str,
    name: str,
    classes: list[bytes] | None = None,
    image_field: str | None = None,
) -> tuple[Shard, list[Skipped]]:
    """Stream a foreign tar once: write its index into `folder` and describe it.

    Args:
        url: of the tar.
        folder: of the index.
        name: of the tar in the manifest.
        classes: takes the samples' `.cls` members, in order.
        image_field: which member of a sample is its image; see `image_member`.

    Returns:
        The shard as the manifest lists it, and what of it was left out.

    Raises:
        DataError: the tar is damaged, truncated, compressed or sparse, a key comes twice, the
            members of a sample lie apart, or no sample has an image.
    """
    rows: list[tuple[str, int, int, int]] = []
    labels: list[Label] = []
    skipped: list[Skipped] = []
    seen = ""
    has_image: dict[str, bool] = {}
    with storage.open_read(url) as stream:
        file = HashingFile(stream)
        for sample, offset in _stream_samples(file, url, skipped):
            extension = image_member(sample.members, image_field)
            before = has_image.get(sample.key)
            if before is not None and before != (extension is not None):
                raise DataError(
                    f"{url} holds members of {sample.key!r} apart from each other, but those of a "
                    "sample must follow each other; make it again with `tar --sort=name -cf "
                    "NEW.tar -C FOLDER .`"
                )
            has_image[sample.key] = extension is not None
            if extension is None:
                has = ", ".join(f".{extension}" for extension in sample.members)
                seen = seen or f"{sample.key}{has.partition(', ')[0]}"
                skipped.append(
                    {"key": sample.key, "reason": f"has no image member, only {has:.200}"}
                )
                continue
            if not _is_utf8(sample.key):
                skipped.append({"key": sample.key, "reason": "has a name that is not UTF-8"})
                continue
            if image_field is None:
                _warn_of_several(tuple(e for e in IMAGE_EXTENSIONS if e in sample.members), url)
            data = sample.members[extension]
            digest = xxhash.xxh3_64_intdigest(data)
            rows.append((sample.key, offset[extension], len(data), digest))
            labels.append(label_of(sample.members, offset))
            if classes is not None and "cls" in sample.members:
                classes.append(sample.members["cls"])
    if seen and not rows:
        raise DataError(f"{url} holds no image (it has {seen:.200}); {_remedy(seen, image_field)}")
    refuse_duplicates([row[0] for row in rows], url)
    index = index_bytes(index_table(rows, labels))
    stem = storage.basename(name).removesuffix(".tar")
    storage.put_bytes(storage.join(folder, stem + ".index.npy"), index)
    return listed_shard(name, len(rows), file, index), skipped


def image_member(members: Mapping[str, bytes], field: str | None) -> str | None:
    """Return the extension of a sample's image; None if it has none.

    Args:
        members: the sample's, by extension: what follows the first dot of a member's name.
        field: the extension in this data set, such as `input.jpg`; None takes a file's.
    """
    return next((e for e in ((field,) if field else IMAGE_EXTENSIONS) if e in members), None)


@functools.cache
def _warn_of_several(extensions: tuple[str, ...], url: str) -> None:
    """Say so where a sample has several images, once a tar."""
    if len(extensions) > 1:
        logger.warning(
            "samples of %s have several images (.%s), of which .%s is taken; name another by "
            "--image-field",
            *(url, ", .".join(extensions), extensions[0]),
        )


def _remedy(seen: str, field: str | None) -> str:
    """Say what helps where no sample of a tar has an image, of which one name is known."""
    extension = seen.rpartition("/")[2].partition(".")[2]
    if extension.endswith("tar"):
        return "unpack it, and index the tars that it holds"
    if not field and extension.endswith(IMAGE_EXTENSIONS):
        return (
            f"what follows the first dot of a name says what the member is: give --image-field "
            f"{extension}, or make the tar again without other dots in the names"
        )
    images = f".{field}" if field else f"a .{', .'.join(IMAGE_EXTENSIONS)}"
    return f"each sample needs {images}; leave this tar out, or name the images by --image-field"


def iterate_shard(manifest: Manifest, shard: Shard) -> Iterator[Sample]:
    """Read a listed shard from end to end, all members, and check its hash at the end.

    Raises:
        DataError: the tar is not the one that the manifest lists, or it is damaged.
    """
    for sample, _ in scan_shard(manifest, shard):
        yield sample


def scan_shard(manifest: Manifest, shard: Shard) -> Iterator[tuple[Sample, dict[str, int]]]:
    """Do as `iterate_shard`, and also yield the byte offset of each member, by extension."""
    url = manifest.url_of(shard)
    with storage.open_read(url) as stream:
        file = HashingFile(stream)
        yield from _stream_samples(file, url, [])
    if file.sha256.hexdigest() != shard.sha256:
        raise not_as_listed(url, "its sha256 is not that of the manifest")


def _stream_samples(
    file: HashingFile, url: str, passed: list[Skipped]
) -> Iterator[tuple[Sample, dict[str, int]]]:
    """Group a tar's consecutive members by key, as WebDataset does: up to the first dot.

    Members that are skipped are listed in `passed`.
    """
    current: tuple[Sample, dict[str, int]] | None = None
    for name, data, offset in stream_members(file, url, passed):
        match = MEMBER_NAME.fullmatch(name)
        if match is None or posixpath.basename(name).startswith("."):
            passed.append({"key": name, "reason": NO_EXTENSION})
            continue
        key, extension = match[1], match[2].lower()
        if current is None or current[0].key != key:
            if current is not None:
                yield current
            current = (Sample(key, {}), {})
        if extension in current[0].members:
            raise DataError(f"{url} holds {name!r} twice; make it again without the older one")
        current[0].members[extension] = data
        current[1][extension] = offset
    if current is not None:
        yield current


def _is_utf8(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
