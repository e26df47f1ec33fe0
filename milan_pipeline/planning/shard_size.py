"""Count the bytes of target shards before anything is written: tars, indices and manifest.

Legend: n samples of a block.
"""

import functools
import tarfile
from collections.abc import Iterable, Sequence

import numpy as np

from milan_pipeline.planning.store_size import KeyBytes
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.shards.index import index_bytes, index_table
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.shards.writer import padded
from milan_pipeline.targets.codec_bytes import most_shards_codec_bytes
from milan_pipeline.targets.layout import OUTER_SHARD
from milan_pipeline.targets.shard_records import (
    KEYS_EXTENSION,
    SHARED_EXTENSION,
    TARGET_EXTENSION,
    keys_json,
    layout_of,
)
from milan_pipeline.targets.units import Mark, Unit, shard_details, target_shard_name

HASH_LETTERS = 64  # sha256


def tar_header_bytes(key: str, extension: str = TARGET_EXTENSION) -> int:
    """Return the bytes of the tar header of a sample's target: more than 512 for a long name."""
    info = tarfile.TarInfo(f"{key}.{extension}")
    return len(info.tobuf(tarfile.PAX_FORMAT))


def shared_key_bytes(keys: Sequence[str]) -> int:
    """Return the bytes of headers and lists of keys in a tar whose samples share members."""
    blocks = (keys[start : start + OUTER_SHARD] for start in range(0, len(keys), OUTER_SHARD))
    return sum(
        tar_header_bytes(block[0], SHARED_EXTENSION)
        + tar_header_bytes(block[0], KEYS_EXTENSION)
        + padded(len(keys_json(block)))
        for block in blocks
    )


class ShardSize:
    """Counts the bytes of the target shards of one identity, if no image is skipped."""

    def __init__(self, identity: Identity) -> None:
        """Take an identity; a hash that is not known yet may be any text of the same length."""
        self._identity = identity
        self._layout = layout_of(identity)
        self._blocks: dict[int, int] = {}

    def tar(self, samples: int, keys: KeyBytes) -> int:
        """Count the bytes of one tar."""
        if self._layout.is_shared:
            whole, rest = divmod(samples, OUTER_SHARD)
            content = whole * self._block(OUTER_SHARD) + self._block(rest) + keys.shared
        else:
            member = tarfile.BLOCKSIZE + padded(self._layout.bytes_per_sample)
            content = samples * member + keys.tar_extra
        end = 2 * tarfile.BLOCKSIZE  # of zeros
        return padded(content + end, tarfile.RECORDSIZE)

    def _block(self, samples: int) -> int:
        """Count the bytes of the records (n,) that share a member."""
        if samples not in self._blocks:
            records = np.zeros(samples, self._layout.dtype)
            self._blocks[samples] = padded(len(self._layout.to_bytes(records))) if samples else 0
        return self._blocks[samples]

    def units(self, units: Iterable[tuple[Unit, KeyBytes]]) -> int:
        """Count the bytes of some units' tars and indices."""
        return sum(
            self.tar(unit.shard.samples, keys) + _index_bytes(unit.shard.samples, keys.longest)
            for unit, keys in units
        )

    def manifest(self, units: Sequence[tuple[Unit, KeyBytes]]) -> int:
        """Count the bytes of the manifest that lists some units' tars, and of a codec's file.

        A codec that needs fitting counts with the most components.
        """
        shards = tuple(self._listed(unit, keys) for unit, keys in units)
        common = {"identity": self._identity, "identity_hash": content_hash(self._identity)}
        manifest = Manifest(kind="targets", folder="", shards=shards, common=common)
        codec = most_shards_codec_bytes(
            self._layout.codec, 1 + self._layout.patches, self._layout.width
        )
        return len(manifest.to_bytes()) + codec

    def _listed(self, unit: Unit, keys: KeyBytes) -> Shard:
        """Return a shard as the manifest lists it, with stand-ins for its hashes."""
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
            details=shard_details(unit, mark, hashed),
        )


@functools.lru_cache
def _index_bytes(samples: int, longest: int) -> int:
    table = index_table([("0" * max(1, longest), 0, 0, 0)])[:0]
    return len(index_bytes(table)) + samples * table.dtype.itemsize
