"""Sizes of a data set, known or assumed, before its targets are extracted."""

import dataclasses
import tarfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.core.threads import ordered_map
from milan_pipeline.planning.shard_size import shared_key_bytes, tar_header_bytes
from milan_pipeline.planning.store_size import KeyBytes
from milan_pipeline.shards.index import index_table, keys_of, load_index
from milan_pipeline.shards.manifest import Manifest, Shard
from milan_pipeline.targets.layout import OUTER_SHARD
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.units import AnyMark, Unit

INDICES_READ = 64  # at most: keys and images of one data set have similar sizes
ASSUMED_KEY_BYTES = 24
PLAIN_NAME_BYTES = 80  # an ASCII key up to this length has a tar header of 512 bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSize:
    """A data set's shards, the bytes of their keys and of an image, and what is assumed of these.

    Attributes:
        shards: every image shard, and the bytes of its keys.
        image_bytes: mean size of the encoded images.
        assumed: sentences that tell the user what is assumed.
    """

    shards: Sequence[tuple[Shard, KeyBytes]]
    image_bytes: float
    assumed: Sequence[str] = ()

    @property
    def images(self) -> int:
        """The number of samples."""
        return sum(shard.samples for shard, _ in self.shards)


def listed_dataset(manifest: Manifest) -> DatasetSize:
    """Read the sizes of a data set from its manifest and indices.

    If there are many shards, only `INDICES_READ` indices are read, evenly spread; the other shards
    are assumed to be like these.

    Raises:
        DataError: an index is not the one that the manifest lists.
        MissingDataError: an index is missing.
    """
    shards = manifest.shards
    count = min(len(shards), INDICES_READ)
    read = sorted({number * len(shards) // count for number in range(count)})
    tables = {number: load_index(manifest, shards[number]) for number in read}
    known = {number: key_bytes(table) for number, table in tables.items()}
    rows = max(1, sum(map(len, tables.values())))
    each = sum(keys.total for keys in known.values()) / rows
    extra = sum(keys.tar_extra for keys in known.values()) / rows
    blocks = max(1, sum(_blocks(len(table)) for table in tables.values()))
    shared = sum(keys.shared for keys in known.values()) / blocks
    longest = max((keys.longest for keys in known.values()), default=0)
    images = sum(int(table["length"].sum()) for table in tables.values()) / rows

    def of(number: int) -> KeyBytes:
        samples = shards[number].samples
        like_others = KeyBytes(
            round(each * samples),
            longest,
            round(extra * samples),
            round(shared * _blocks(samples)),
        )
        return known.get(number, like_others)

    said = f"keys and images are as in {count} of {len(shards)} indices"
    return DatasetSize(
        shards=[(shard, of(number)) for number, shard in enumerate(shards)],
        image_bytes=images,
        assumed=[said] if count < len(shards) else [],
    )


def assumed_dataset(samples: int, samples_per_shard: int, image_bytes: int) -> DatasetSize:
    """Return the sizes of a data set as pack-images would write it.

    Args:
        samples: number of images.
        samples_per_shard: images in each shard but the last.
        image_bytes: mean size of the encoded images.
    """
    counts = [samples_per_shard] * (samples // samples_per_shard)
    counts += [samples % samples_per_shard] if samples % samples_per_shard else []
    hashed = "0" * 64
    said = (
        f"shards of {samples_per_shard} images, keys of {ASSUMED_KEY_BYTES} letters and images of "
        f"{image_bytes} bytes are assumed; --images URL would tell"
    )
    shards = [
        Shard(
            name=f"images-{number:06d}.tar",
            samples=count,
            bytes=0,
            sha256=hashed,
            index_sha256=hashed,
        )
        for number, count in enumerate(counts)
    ]
    alike = {count: _bytes_of(["k" * ASSUMED_KEY_BYTES] * count) for count in set(counts)}
    return DatasetSize(
        shards=[(shard, alike[shard.samples]) for shard in shards],
        image_bytes=image_bytes,
        assumed=[said],
    )


def stored_units(
    url: str, units: Sequence[tuple[Unit, AnyMark]], *, workers: int
) -> list[tuple[Unit, KeyBytes]]:
    """Read the keys of units of a store, to count the bytes that packing them takes.

    Args:
        url: the store.
        units: finished units, with their marks.
        workers: threads that read.

    Returns:
        Each unit with the number of samples that have targets, and the bytes of their keys.

    Raises:
        DataError: a unit is damaged.
        StorageError: the store cannot be read.
    """

    def read(item: tuple[Unit, AnyMark]) -> tuple[Unit, KeyBytes]:
        unit, mark = item
        shard = dataclasses.replace(unit.shard, samples=mark.n)
        return Unit(unit.view, shard), _bytes_of(open_unit(url, unit, mark).keys())

    return list(ordered_map(read, units, workers=workers, ahead=2 * workers))


def key_bytes(table: NDArray[np.void]) -> KeyBytes:
    """Count the bytes of an index's keys, in the store and in tar headers."""
    lengths = np.char.str_len(table["key"])
    width = table["key"].dtype.itemsize
    letters = np.ascontiguousarray(table["key"]).view(np.uint8).reshape(-1, width)
    unusual = (lengths > PLAIN_NAME_BYTES) | (letters > 127).any(axis=1)
    extra = sum(tar_header_bytes(key) - tarfile.BLOCKSIZE for key in keys_of(table[unusual]))
    return KeyBytes(int(lengths.sum()), width, extra, shared_key_bytes(keys_of(table)))


def _bytes_of(keys: Sequence[str]) -> KeyBytes:
    return key_bytes(index_table([(key, 0, 0, 0) for key in keys]))


def _blocks(samples: int) -> int:
    """Return the number of blocks of samples that share members."""
    return -(-samples // OUTER_SHARD)
