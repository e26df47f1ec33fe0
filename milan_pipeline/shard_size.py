"""What target shards take, in bytes, before anything is written: tars, indices and manifest."""

import functools
import tarfile
from collections.abc import Iterable, Sequence

from milan_pipeline.identity import Identity, content_hash
from milan_pipeline.manifest import Manifest, Shard, index_bytes, index_table
from milan_pipeline.shards import END_OF_ARCHIVE_BYTES
from milan_pipeline.store_size import KeyBytes
from milan_pipeline.target_records import TARGET_EXTENSION, layout_of
from milan_pipeline.units import Mark, Unit, shard_details, target_shard_name

HASH_LETTERS = 64  # sha256


def tar_header_bytes(key: str) -> int:
    """Return what the tar header of a sample's target takes: more than 512 for a long name."""
    info = tarfile.TarInfo(f"{key}.{TARGET_EXTENSION}")
    return len(info.tobuf(tarfile.PAX_FORMAT))


class ShardSize:
    """Counts the bytes of the target shards of one identity, no image being skipped."""

    def __init__(self, identity: Identity) -> None:
        """Take an identity; a hash in it that is not known yet may be any text of its length."""
        self._identity = identity
        self._record = _padded(layout_of(identity).bytes_per_sample, tarfile.BLOCKSIZE)

    def tar(self, samples: int, keys: KeyBytes) -> int:
        """Count the bytes of one tar."""
        member = tarfile.BLOCKSIZE + self._record
        content = samples * member + keys.tar_extra + END_OF_ARCHIVE_BYTES
        return _padded(content, tarfile.RECORDSIZE)

    def units(self, units: Iterable[tuple[Unit, KeyBytes]]) -> int:
        """Count the bytes of some units' tars and indices."""
        return sum(
            self.tar(unit.shard.samples, keys) + _index_bytes(unit.shard.samples, keys.longest)
            for unit, keys in units
        )

    def manifest(self, units: Sequence[tuple[Unit, KeyBytes]]) -> int:
        """Count the bytes of the manifest that lists some units' tars."""
        shards = tuple(self._listed(unit, keys) for unit, keys in units)
        common = {"identity": self._identity, "identity_hash": content_hash(self._identity)}
        manifest = Manifest(kind="targets", folder="", shards=shards, common=common)
        return len(manifest.to_bytes())

    def _listed(self, unit: Unit, keys: KeyBytes) -> Shard:
        """A shard as the manifest lists it, with stand-ins for its hashes."""
        hashed = "0" * HASH_LETTERS
        mark = Mark(
            shard=unit.shard.name,
            sha256=unit.shard.sha256,
            identity_hash=hashed,
            view=unit.view,
            n=unit.shard.samples,
            skipped=[],
            objects={},
        )
        return Shard(
            name=target_shard_name(unit),
            samples=unit.shard.samples,
            bytes=self.tar(unit.shard.samples, keys),
            sha256=hashed,
            index_sha256=hashed,
            details=shard_details(unit, mark),
        )


@functools.lru_cache
def _index_bytes(samples: int, longest: int) -> int:
    table = index_table([("0" * max(1, longest), 0, 0, 0)])[:0]
    return len(index_bytes(table)) + samples * table.dtype.itemsize


def _padded(size: int, block: int) -> int:
    return -(-size // block) * block
