"""Transcoding unit by unit, from one store to another, by whichever process."""

import dataclasses

import numpy as np
import zarr

from milan_pipeline.codec_files import read_store_codec
from milan_pipeline.devices import pick_device
from milan_pipeline.identity import require_hash
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.target_store import OUTER_SHARD, UnitBlock, read_identity
from milan_pipeline.transcoding import Recoder, code_shape
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.unit_writer import UnitWriter
from milan_pipeline.units import Mark, Unit, unit_sha256
from milan_pipeline.work import Work

KEPT = "finished units are kept"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscodingSpec:
    """From one store to another.

    Attributes:
        source: URL of the store that is read.
        source_hash: of its identity.
        dest: URL of the one that is written; it has its root, and its codec.
        dest_hash: of its identity.
        device: that decodes and encodes, or "auto".
    """

    source: str
    source_hash: str
    dest: str
    dest_hash: str
    device: str

    def begin(self, number: int | None) -> "Transcoding":
        """Read both codecs.

        Raises:
            DataError: a codec is missing or damaged.
            MismatchError: the stores here are not those that are meant.
            StorageError: a store cannot be read.
        """
        source, dest = read_identity(self.source), read_identity(self.dest)
        require_hash(source, self.source_hash, what=self.source)
        require_hash(dest, self.dest_hash, what=self.dest)
        recoder = Recoder(
            source=read_store_codec(self.source, source),
            target=read_store_codec(self.dest, dest),
            device=pick_device(self.device, number),
        )
        return Transcoding(self, recoder, code_shape(dest))


class Transcoding(Work[tuple[Unit, Mark], Mark]):
    """Transcodes units, each given with its mark in the store that is read."""

    def __init__(self, spec: TranscodingSpec, recoder: Recoder, shape: tuple[int, int]) -> None:
        self._spec = spec
        self._recoder = recoder
        self._shape = shape  # (N, C) of one sample's new codes

    def do(self, item: tuple[Unit, Mark], stop: StopRequest) -> Mark:
        """Transcode one unit and return its new mark; a stop is heeded before each outer shard.

        Raises:
            DataError: the unit is damaged, or cannot be encoded.
            InterruptedRunError: a stop was asked for.
            StorageError: a store cannot be read or written.
        """
        unit, mark = item
        group = open_unit(self._spec.source, unit, mark)
        writer = UnitWriter(
            self._spec.dest,
            unit,
            identity_hash=self._spec.dest_hash,
            codec=self._recoder.target,
            shape=self._shape,
            source_unit=unit_sha256(mark),
        )
        for start in range(0, mark.n, OUTER_SHARD):
            stop.raise_if_asked(KEPT)
            writer.add(self._block(group, start, min(start + OUTER_SHARD, mark.n)))
        return writer.finish(mark.skipped)

    def _block(self, group: zarr.Group, start: int, stop: int) -> UnitBlock:
        values = {
            name: np.asarray(group[name][start:stop])  # type: ignore[index]
            for name in ("box", "flip", "size", "digest")
        }
        keys = [str(key) for key in group["key"][start:stop]]  # type: ignore[index, union-attr]
        recoded = self._recoder(group, start, stop)
        return UnitBlock(
            key=keys,
            codes=recoded["codes"],
            scale=recoded.get("scale"),
            prior=recoded["prior"],
            **values,
        )
