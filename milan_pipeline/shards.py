"""Tar shards: write one byte-reproducibly, index a foreign one, read samples back verified."""

import hashlib
import io
import os
import re
import tarfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import xxhash

from milan_pipeline import storage
from milan_pipeline.documents import Skipped
from milan_pipeline.errors import DataError
from milan_pipeline.manifest import Manifest, Shard, index_bytes, index_table
from milan_pipeline.tar_reading import HashingFile, stream_members

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
OPEN_FILES = 256  # each of up to 64 lanes reads an image and a target shard, at times two
MEMBER_NAME = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)", re.DOTALL)
"""How WebDataset splits a member's name into key and extension; it passes other names over."""


class Part(NamedTuple):
    """Where one of several samples lies in a member that they share, in bytes."""

    key: str
    start: int
    length: int


class Sample(NamedTuple):
    """A key and its members by extension; the first member is the one that the index points at.

    Where several samples share that member, `parts` says which, and the index points at each.
    """

    key: str
    members: dict[str, bytes]
    parts: tuple[Part, ...] = ()


def write_shard(folder: str, name: str, samples: Iterable[Sample]) -> Shard:
    """Write `folder/name` and its index, atomically; the same samples give the same bytes.

    Args:
        folder: the folder of the manifest that will list the shard.
        name: the tar's path in that folder.
        samples: keys in order; each sample's members follow one another. One whose first member
            several share counts, and has rows in the index, for all of them.

    Raises:
        DataError: two samples have one key.
        StorageError: the place cannot be written.
    """
    rows: list[tuple[str, int, int, int]] = []
    with storage.atomic_writer(storage.join(folder, name)) as stream:
        file = HashingFile(stream)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for sample in samples:
                rows += _rows_of(sample, offset=_add_members(tar, sample))
        _refuse_duplicates([row[0] for row in rows], name)
    index = index_bytes(index_table(rows))
    storage.put_bytes(storage.join(folder, name.removesuffix(".tar") + ".index.npy"), index)
    return _listed(name, len(rows), file, index)


def _add_members(tar: tarfile.TarFile, sample: Sample) -> int:
    """Append a sample's members; return the offset of the first one's bytes."""
    offsets = []
    for extension, data in sample.members.items():
        info = tarfile.TarInfo(f"{sample.key}.{extension}")
        info.size = len(data)
        info.mode = 0o644
        tar.addfile(info, io.BytesIO(data))
        offsets.append(tar.offset - padded(len(data)))
    return offsets[0]


def _rows_of(sample: Sample, *, offset: int) -> list[tuple[str, int, int, int]]:
    """Return the index rows of a sample whose first member begins at `offset`."""
    member = memoryview(next(iter(sample.members.values())))
    parts = sample.parts or (Part(sample.key, 0, len(member)),)
    return [
        (key, offset + start, length, xxhash.xxh3_64_intdigest(member[start : start + length]))
        for key, start, length in parts
    ]


def padded(size: int, block: int = tarfile.BLOCKSIZE) -> int:
    """Return the size of whole blocks that so many bytes take."""
    return -(-size // block) * block


def _listed(name: str, samples: int, file: HashingFile, index: bytes) -> Shard:
    return Shard(
        name=name,
        samples=samples,
        bytes=file.count,
        sha256=file.sha256.hexdigest(),
        index_sha256=hashlib.sha256(index).hexdigest(),
    )


def index_shard(
    url: str, folder: str, name: str, classes: list[bytes] | None = None
) -> tuple[Shard, list[Skipped]]:
    """Stream a foreign tar once: write its index into `folder` and describe it.

    Args:
        url: of the tar.
        folder: of the index.
        name: of the tar in the manifest.
        classes: takes the samples' `.cls` members, in order.

    Returns:
        The shard as the manifest lists it, and what of it was left out.

    Raises:
        DataError: the tar is damaged, truncated, compressed or sparse, or a key comes twice.
    """
    rows: list[tuple[str, int, int, int]] = []
    skipped: list[Skipped] = []
    with storage.open_read(url) as stream:
        file = HashingFile(stream)
        for sample, offset in _stream_samples(file, url, skipped):
            extension = next((e for e in IMAGE_EXTENSIONS if e in sample.members), None)
            if extension is None:
                skipped.append({"key": sample.key, "reason": "has no image member"})
                continue
            if not _is_utf8(sample.key):
                skipped.append({"key": sample.key, "reason": "has a name that is not UTF-8"})
                continue
            data = sample.members[extension]
            digest = xxhash.xxh3_64_intdigest(data)
            rows.append((sample.key, offset[extension], len(data), digest))
            if classes is not None and "cls" in sample.members:
                classes.append(sample.members["cls"])
    _refuse_duplicates([row[0] for row in rows], url)
    index = index_bytes(index_table(rows))
    stem = storage.basename(name).removesuffix(".tar")
    storage.put_bytes(storage.join(folder, stem + ".index.npy"), index)
    return _listed(name, len(rows), file, index), skipped


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
        raise DataError(f"{url} does not match the manifest's sha256; it was changed or damaged")


def _stream_samples(
    file: HashingFile, url: str, passed: list[Skipped]
) -> Iterator[tuple[Sample, dict[str, int]]]:
    """Group a tar's consecutive members by key, as WebDataset does: up to the first dot.

    What is passed over is noted in `passed`.
    """
    current: tuple[Sample, dict[str, int]] | None = None
    for name, data, offset in stream_members(file, url, passed):
        match = MEMBER_NAME.fullmatch(name)
        if match is None:
            passed.append({"key": name, "reason": "has no key and ending in its name"})
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


def _refuse_duplicates(keys: list[str], name: str) -> None:
    if len(set(keys)) == len(keys):
        return
    twice = next(key for key in keys if keys.count(key) > 1)
    raise DataError(f"{name} holds the key {twice!r} twice; rename one of the samples")


class SampleReader:
    """Read single samples by offset from local or remote shards, each checked by its hash.

    Local files stay open, a bounded number at a time. Not for sharing between threads.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[str, BinaryIO | None] = OrderedDict()

    def read(self, url: str, offset: int, length: int, digest: int) -> bytes:
        """Return `length` bytes from `offset`.

        Raises:
            DataError: the bytes' xxh3-64 is not `digest`, or the shard ends before them.
            StorageError: the shard cannot be read.
        """
        file = self._local_file(url)
        try:
            data = os.pread(file.fileno(), length, offset) if file else None
        except OSError:  # what a file server's trouble leaves stale: read anew, with patience
            self._close(url)
            data = None
        if data is None:
            data = storage.read_bytes(url, offset, length)
        return checked(data, url, offset, length, digest)

    def _local_file(self, url: str) -> BinaryIO | None:
        """Return the open file of a local URL, None for a remote one; no look-up when it is hot."""
        if url in self._files:
            self._files.move_to_end(url)
            return self._files[url]
        if len(self._files) >= OPEN_FILES:
            self._close(next(iter(self._files)))
        local = storage.local_path(url) is not None
        self._files[url] = storage.open_read(url) if local else None
        return self._files[url]

    def _close(self, url: str) -> None:
        file = self._files.pop(url)
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close every open file."""
        for url in list(self._files):
            self._close(url)


def checked(data: bytes, url: str, offset: int, length: int, digest: int) -> bytes:
    """Return a sample's bytes if they are what the index says.

    Raises:
        DataError: their xxh3-64 is not `digest`.
    """
    if xxhash.xxh3_64_intdigest(data) != digest:
        raise DataError(
            f"{url} is truncated or damaged: the {length} bytes at {offset} do not match the "
            "index; copy the shard again, or index it anew with `milan-pipeline index "
            "--overwrite` if it was changed on purpose"
        )
    return data
