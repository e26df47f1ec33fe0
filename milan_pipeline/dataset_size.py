"""What is known, or assumed, of a data set before its targets are extracted."""

import dataclasses
import tarfile
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from milan_pipeline.manifest import Manifest, Shard, keys_of, load_index
from milan_pipeline.shard_size import tar_header_bytes
from milan_pipeline.store_size import KeyBytes

INDICES_READ = 64  # of one data set at most: what lies there in keys and images is much alike
ASSUMED_KEY_BYTES = 24
PLAIN_NAME_BYTES = 80  # of a key whose tar header is 512 bytes, unless it has other than ASCII


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSize:
    """A data set's shards, the bytes of their keys and of an image, and what of that is assumed.

    Attributes:
        shards: every image shard, and what its keys take.
        image_bytes: mean of the encoded images.
        assumed: sentences for the reader of a plan.
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

    Of many shards, `INDICES_READ` indices are read, evenly spread, and speak for the rest.

    Raises:
        DataError: an index is not the one that the manifest lists.
        MissingDataError: there is none.
    """
    shards = manifest.shards
    count = min(len(shards), INDICES_READ)
    read = sorted({number * len(shards) // count for number in range(count)})
    tables = {number: load_index(manifest, shards[number]) for number in read}
    known = {number: key_bytes(table) for number, table in tables.items()}
    rows = max(1, sum(map(len, tables.values())))
    each = sum(keys.total for keys in known.values()) / rows
    extra = sum(keys.tar_extra for keys in known.values()) / rows
    longest = max((keys.longest for keys in known.values()), default=0)
    images = sum(int(table["length"].sum()) for table in tables.values()) / rows

    def of(number: int) -> KeyBytes:
        samples = shards[number].samples
        like_others = KeyBytes(round(each * samples), longest, round(extra * samples))
        return known.get(number, like_others)

    said = f"keys and images are as in {count} of {len(shards)} indices"
    return DatasetSize(
        shards=[(shard, of(number)) for number, shard in enumerate(shards)],
        image_bytes=images,
        assumed=[said] if count < len(shards) else [],
    )


def assumed_dataset(samples: int, samples_per_shard: int, image_bytes: int) -> DatasetSize:
    """Imagine a data set as pack-images would write it.

    Args:
        samples: images in all.
        samples_per_shard: in each shard but the last.
        image_bytes: mean of the encoded images.
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
    return DatasetSize(
        shards=[(s, KeyBytes(ASSUMED_KEY_BYTES * s.samples, ASSUMED_KEY_BYTES)) for s in shards],
        image_bytes=image_bytes,
        assumed=[said],
    )


def key_bytes(table: NDArray[np.void]) -> KeyBytes:
    """Count what an index's keys take, in the store and in tar headers."""
    lengths = np.char.str_len(table["key"])
    width = table["key"].dtype.itemsize
    letters = np.ascontiguousarray(table["key"]).view(np.uint8).reshape(-1, width)
    unusual = (lengths > PLAIN_NAME_BYTES) | (letters > 127).any(axis=1)
    extra = sum(tar_header_bytes(key) - tarfile.BLOCKSIZE for key in keys_of(table[unusual]))
    return KeyBytes(int(lengths.sum()), width, extra)
