"""Write tar shards: the same samples give the same bytes, and a kill loses no finished shard."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import logging
import tarfile
import time
from collections.abc import Collection, Generator, Iterable
from typing import NamedTuple

import xxhash

from milan_pipeline import storage
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.shards.index import index_bytes, index_table
from milan_pipeline.shards.labels import Label, label_of
from milan_pipeline.shards.manifest import (
    MANIFEST_NAME,
    Manifest,
    Shard,
    load_manifest,
)
from milan_pipeline.shards.shard_names import index_name, url_in
from milan_pipeline.shards.tar_stream import HashingFile
from milan_pipeline.storage.space import write_error


class MemberPart(NamedTuple):
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
    parts: tuple[MemberPart, ...] = ()


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
    labels: list[Label] = []
    with storage.atomic_writer(storage.join(folder, name)) as stream:
        file = HashingFile(stream)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for sample in samples:
                offsets = _add_members(tar, sample)
                own = _rows_of(sample, offset=next(iter(offsets.values())))
                rows += own
                labels += [label_of(sample.members, offsets)] * len(own)
        refuse_duplicates([row[0] for row in rows], name)
    index = index_bytes(index_table(rows, labels))
    storage.put_bytes(storage.join(folder, name.removesuffix(".tar") + ".index.npy"), index)
    return listed_shard(name, len(rows), file, index)


def _add_members(tar: tarfile.TarFile, sample: Sample) -> dict[str, int]:
    """Append a sample's members; return where the bytes of each begin, by extension."""
    offsets = {}
    for extension, data in sample.members.items():
        info = tarfile.TarInfo(f"{sample.key}.{extension}")
        info.size = len(data)
        info.mode = 0o644
        tar.addfile(info, io.BytesIO(data))
        offsets[extension] = tar.offset - padded(len(data))
    return offsets


def _rows_of(sample: Sample, *, offset: int) -> list[tuple[str, int, int, int]]:
    """Return the index rows of a sample whose first member begins at `offset`."""
    member = memoryview(next(iter(sample.members.values())))
    parts = sample.parts or (MemberPart(sample.key, 0, len(member)),)
    return [
        (key, offset + start, length, xxhash.xxh3_64_intdigest(member[start : start + length]))
        for key, start, length in parts
    ]


def padded(size: int, block: int = tarfile.BLOCKSIZE) -> int:
    """Return the size of whole blocks that so many bytes take."""
    return -(-size // block) * block


def listed_shard(name: str, samples: int, file: HashingFile, index: bytes) -> Shard:
    """Return a manifest's row of a tar that was written or read through `file`."""
    return Shard(
        name=name,
        samples=samples,
        bytes=file.count,
        sha256=file.sha256.hexdigest(),
        index_sha256=hashlib.sha256(index).hexdigest(),
    )


def refuse_duplicates(keys: list[str], name: str) -> None:
    """Raise a DataError if the shard `name` holds a key twice."""
    if len(set(keys)) == len(keys):
        return
    twice = next(key for key in keys if keys.count(key) > 1)
    raise DataError(f"{name} holds the key {twice!r} twice; rename one of the samples")


logger = logging.getLogger(__name__)
# Rewriting the manifest, which is long if there are many shards, may take this share of the time.
MANIFEST_TIME_SHARE = 0.1
NO_FILE = -1
REMOTE_MANIFEST_SECONDS = 5.0
"""At least between two writes of a remote manifest: some stores take one write a second of a name,
and each is paid for."""


def listed_shards(folder: str, kind: str) -> dict[str, Shard]:
    """Return the shards that an earlier, perhaps unfinished, run listed; by name.

    A listed shard is left out, so that it is made again, where its tar or index was deleted, or its
    tar has another size.

    Raises:
        MismatchError: the folder holds shards of another kind.
    """
    if not storage.exists(storage.join(folder, MANIFEST_NAME)):
        return {}
    manifest = load_manifest(folder, kind=kind, allow_unfinished=True)
    by_folder: dict[str, list[Shard]] = {}
    for shard in manifest.shards:
        by_folder.setdefault(storage.folder_of(manifest.url_of(shard)), []).append(shard)
    files = ListedFiles(manifest.folder)
    lost = {
        shard.name
        for shards in by_folder.values()
        for shard in shards
        if not files.has(shard.name, shard.bytes)
    }
    return {shard.name: shard for shard in manifest.shards if shard.name not in lost}


class ListedFiles:
    """Tells whether listed shards are there, by what lies in their folders.

    As a rule tars and indices lie in one; what was found in two folders is in memory at a time.

    Args:
        folder: that of the manifest.
    """

    def __init__(self, folder: str) -> None:
        self._sizes_in = functools.lru_cache(maxsize=2)(
            lambda below: storage.list_sizes(url_in(folder, below) if below else folder)
        )

    def has(self, name: str, size: int) -> bool:
        """Tell whether a shard has its tar, of so many bytes, and its index."""
        # A web server may not tell the size.
        return self._size_of(name) in (size, None) and self._size_of(index_name(name)) != NO_FILE

    def _size_of(self, name: str) -> int | None:
        if "://" in name or name.startswith("/"):
            below, own = storage.folder_of(name), storage.basename(name)
        else:
            below, _, own = name.rpartition("/")
        return self._sizes_in(below).get(own, NO_FILE)


def delete_unlisted(folder: str, kind: str, keep: Collection[str]) -> None:
    """Delete the local tars that a stage listed before and will not list again, and their indices.

    A manifest that is damaged, or of another kind, says nothing of what may be deleted.

    Args:
        folder: whose manifest lists shards that the stage itself wrote.
        kind: of the shards.
        keep: the names that the new manifest will list.

    Raises:
        StorageError: a file cannot be deleted.
    """
    try:
        manifest = load_manifest(folder, kind=kind, allow_unfinished=True)
    except (DataError, MissingDataError, MismatchError):
        return
    for shard in manifest.shards:
        if shard.name in keep:
            continue
        for url in (manifest.url_of(shard), manifest.index_url_of(shard)):
            path = storage.local_path(url)
            try:
                if path is not None:
                    path.unlink(missing_ok=True)
            except OSError as error:
                raise write_error(path or url, error) from error


def list_as_written(
    manifest: Manifest,
    *,
    order: list[str],
    written: Generator[Shard, None, None],
    stop: StopRequest,
) -> Manifest:
    """List shards as they are written: save the manifest now and then, complete it at the end.

    Args:
        manifest: what is listed before.
        order: the names of all shards that the complete manifest will list, in its order.
        written: yields each shard right after its tar and index are in place; is closed here, so
            that its threads start nothing more once a stop was asked for.
        stop: asked after each shard.

    Returns:
        The manifest as saved: complete if all of them are listed.
    """
    listed = {shard.name: shard for shard in manifest.shards}
    at_least = REMOTE_MANIFEST_SECONDS if storage.local_path(manifest.folder) is None else 0.0
    saved_at, save_seconds = time.monotonic(), 0.0
    try:
        with contextlib.closing(written):
            for shard in written:
                listed[shard.name] = shard
                logger.info("%s: %d samples, %d bytes", shard.name, shard.samples, shard.bytes)
                wait = max(at_least, save_seconds / MANIFEST_TIME_SHARE)
                if time.monotonic() - saved_at >= wait:
                    started = time.monotonic()
                    _saved(manifest, listed, order, complete=False)
                    saved_at = time.monotonic()
                    save_seconds = saved_at - started
                stop.raise_if_asked("finished shards are kept")
    except BaseException:
        _saved(manifest, listed, order, complete=False)
        raise
    return _saved(manifest, listed, order, complete=listed.keys() >= set(order))


def _saved(
    manifest: Manifest, listed: dict[str, Shard], order: list[str], *, complete: bool
) -> Manifest:
    shards = tuple(listed[name] for name in order if name in listed)
    manifest = dataclasses.replace(manifest, shards=shards, complete=complete)
    manifest.save()
    return manifest
