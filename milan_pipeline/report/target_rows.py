"""Read a random sample of decoded targets from a store or from target shards, and their views.

A store keeps targets in blocks; each block is an object that is fetched and checked as a whole. So
the sample of a store comes from a few random blocks, however large the store is. Target shards are
read record by record. The pixels of views come from image shards, and must be those that the
teacher saw.

Legend: n samples, N = 1 + L tokens (CLS first), L patches, D target width, C code width.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import Codec, decode_prior
from milan_pipeline.data.viewed_pairs import stored_view
from milan_pipeline.errors import MissingDataError
from milan_pipeline.images.decode import digest
from milan_pipeline.images.views import Interpolation
from milan_pipeline.provenance.identity import Identity, stated_identity
from milan_pipeline.report.folder_kind import folder_kind
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest
from milan_pipeline.shards.random_access import SampleReader
from milan_pipeline.targets.codec_files import read_shards_codec, read_store_codec
from milan_pipeline.targets.layout import OUTER_SHARD, read_identity
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.shard_records import layout_of
from milan_pipeline.targets.store_record import finished_units, read_store_record
from milan_pipeline.targets.units import AnyMark, Unit

BLOCKS = 24
"""Blocks of a store that are read; with int8 targets of a ViT-B/16, each has 26 MB."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetRows:
    """Some targets, in no order.

    Attributes:
        identity: identity of the targets.
        codec: the codec that they are stored with.
        total: number of all targets, of which these are a sample.
        blocks: number of blocks that they come from; None if they were drawn one by one.
        source: stem of the image shard of each target.
        source_sha256: hash of that shard when the target was made.
        key: key of each target in that shard.
        view: number of the view of each target.
        prior_nL: priors, float32.
        tokens_nND: decoded targets, float32.
        records: (n,), of `RecordLayout.dtype`; they also have box, flip and digest.
    """

    identity: Identity
    codec: Codec
    total: int
    blocks: int | None
    source: list[str]
    source_sha256: list[str]
    key: list[str]
    view: list[int]
    prior_nL: NDArray[np.float32]
    tokens_nND: torch.Tensor
    records: NDArray[np.void]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        rows, columns = self.identity["teacher"]["grid"]
        return int(rows), int(columns)

    def __len__(self) -> int:
        return len(self.key)


class _Place(NamedTuple):
    """The source of some rows, and their records (n,), as target shards have them."""

    source: str
    source_sha256: str
    view: int
    keys: list[str]
    records: NDArray[np.void]


def read_target_rows(url: str, count: int, seed: int, *, blocks: int = BLOCKS) -> TargetRows:
    """Read a sample of the finished targets at a place.

    Args:
        url: a target store or a folder of target shards, finished or not.
        count: the most targets.
        seed: seed of the sample.
        blocks: of a store, the most that are read.

    Raises:
        MissingDataError: there is no finished target.
        DataError: a target or its metadata is damaged.
        StorageError: the place cannot be read.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    if folder_kind(url) == "target store":
        identity = read_identity(url)
        return _rows_of(
            identity,
            read_store_codec(url, identity),
            *_from_store(url, identity, count, blocks, generator),
        )
    manifest = load_manifest(url, kind="targets", allow_unfinished=True)
    identity = stated_identity(manifest.common, what=url)
    places = list(_from_shards(url, count, generator))
    return _rows_of(identity, read_shards_codec(url, identity), places, manifest.samples, None)


def decoded(codec: Codec, records: NDArray[np.void]) -> torch.Tensor:
    """Return the targets (n, N, D), float32, of some records (n,)."""
    # Always copied: numpy takes a field of a single record for contiguous, but torch refuses its
    # stride.
    codes_nNC = torch.from_numpy(np.array(records["codes"], order="C"))
    scale_nN = (
        torch.from_numpy(np.array(records["scale"], order="C")) if codec.spec.has_scale else None
    )
    return codec.decode(codes_nNC, scale_nN)


def draw_rows(total: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw `count` of the first `total` numbers, or all if there are fewer; ascending."""
    drawn: NDArray[np.int64] = generator.choice(total, size=min(count, total), replace=False)
    return np.sort(drawn)


def _from_store(
    url: str, identity: Identity, count: int, most_blocks: int, generator: np.random.Generator
) -> tuple[list[_Place], int, int]:
    """Return places, the number of all targets, and the number of blocks that were read."""
    record = read_store_record(url, identity)
    done = finished_units(url, identity, record, views=None, allow_unfinished=True)
    blocks = [(unit, mark, start) for unit, mark in done for start in range(0, mark.n, OUTER_SHARD)]
    chosen = [blocks[number] for number in draw_rows(len(blocks), most_blocks, generator)]
    sizes = np.array([min(OUTER_SHARD, mark.n - start) for _, mark, start in chosen], dtype=int)
    drawn = draw_rows(int(sizes.sum()), count, generator)
    ends = np.cumsum(sizes)
    places = []
    for (unit, mark, start), size, end in zip(chosen, sizes, ends, strict=True):
        mine = drawn[(drawn >= end - size) & (drawn < end)] - (end - size) + start
        if len(mine):
            places.append(_from_unit(url, identity, unit, mark, mine))
    return places, sum(mark.n for _, mark in done), len(chosen)


def _from_unit(
    url: str, identity: Identity, unit: Unit, mark: AnyMark, rows: NDArray[np.int64]
) -> _Place:
    """Read rows of one block."""
    stored, own = open_unit(url, unit, mark), rows.tolist()
    records = layout_of(identity).records_of(stored, own)
    return _Place(unit.shard.stem, mark.sha256, unit.view, stored.keys(own), records)


def _from_shards(url: str, count: int, generator: np.random.Generator) -> Iterator[_Place]:
    manifest = load_manifest(url, kind="targets", allow_unfinished=True)
    layout = layout_of(manifest.common["identity"])
    for shard, _, keys, data in draw_samples(manifest, count, generator):
        yield _Place(
            shard.details["source"],
            shard.details["source_sha256"],
            int(shard.details["view"]),
            keys,
            np.array([layout.from_bytes(one) for one in data], layout.dtype),
        )


def draw_samples(
    manifest: Manifest, count: int, generator: np.random.Generator
) -> Iterator[tuple[Shard, NDArray[np.int64], list[str], list[bytes]]]:
    """Draw samples of all shards; yield each shard with the rows, keys and bytes of its own.

    Raises:
        DataError: an index or a sample is damaged.
    """
    drawn, first = draw_rows(manifest.samples, count, generator), 0
    with contextlib.closing(SampleReader()) as reader:
        for shard in manifest.shards:
            mine = drawn[(drawn >= first) & (drawn < first + shard.samples)] - first
            first += shard.samples
            if len(mine):
                table, url = load_index(manifest, shard)[mine], manifest.url_of(shard)
                yield shard, mine, keys_of(table), [reader.read_row(url, row) for row in table]


def _rows_of(
    identity: Identity, codec: Codec, places: Sequence[_Place], total: int, blocks: int | None
) -> TargetRows:
    if not places:
        raise MissingDataError("there is no finished target to look at; extract some first")
    records = np.concatenate([place.records for place in places])
    counts = [len(place.keys) for place in places]
    return TargetRows(
        identity=identity,
        codec=codec,
        total=total,
        blocks=blocks,
        source=_repeated([place.source for place in places], counts),
        source_sha256=_repeated([place.source_sha256 for place in places], counts),
        key=[key for place in places for key in place.keys],
        view=_repeated([place.view for place in places], counts),
        prior_nL=decode_prior(np.array(records["prior"], order="C")),
        tokens_nND=decoded(codec, records),
        records=records,
    )


def _repeated(values: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


class ViewSource:
    """Cuts views out of image shards."""

    def __init__(self, images: str) -> None:
        """Read the manifest.

        Raises:
            MissingDataError: there is none.
            DataError: it is damaged.
        """
        self._manifest = load_manifest(images, kind="images")
        self._shards = {shard.stem: shard for shard in self._manifest.shards}
        self._places: dict[str, dict[bytes, np.void]] = {}

    def views(
        self, rows: TargetRows, size: int, interpolation: Interpolation = "bicubic"
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the view (size, size, 3) of each target: crop, resize and flip.

        Raises:
            MissingDataError: there is no such image here.
            MismatchError: its bytes are not those that the teacher saw.
            DataError: it cannot be decoded, or the stored box is not inside it.
        """
        with contextlib.closing(SampleReader()) as reader:
            for number in range(len(rows)):
                key = rows.key[number]
                data = self._read(reader, rows.source[number], key)
                view_CSS = stored_view(
                    data,
                    rows.records[number],
                    image_size=size,
                    digest=digest(data),
                    key=key,
                    interpolation=interpolation,
                )
                yield np.ascontiguousarray(view_CSS.permute(1, 2, 0).numpy())

    def _read(self, reader: SampleReader, source: str, key: str) -> bytes:
        shard = self._shards.get(source)
        if shard is not None and source not in self._places:
            table = load_index(self._manifest, shard)
            self._places[source] = {bytes(row["key"]): row for row in table}
        row = self._places.get(source, {}).get(key.encode())
        if shard is None or row is None:
            raise MissingDataError(
                f"--images {self._manifest.folder} has no image {key!r} in {source}.tar; give the "
                "folder that extract-targets read"
            )
        return reader.read_row(self._manifest.url_of(shard), row)
