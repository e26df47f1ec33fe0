"""Decode targets and encode them with another codec, priors included; no teacher runs.

Rows are always encoded in the same blocks, so that the bytes do not depend on the caller: packing
with another codec gives the same bytes as transcoding and then packing.

Legend: n samples, N = 1 + L tokens, L patches, D target width, C code width.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.cluster.work import Work
from milan_pipeline.codecs.build import codec_of
from milan_pipeline.codecs.fitting import fit_codec, fit_steps
from milan_pipeline.codecs.interface import Codec, Encoded, decode_prior, encode_prior
from milan_pipeline.codecs.joint import JointCodec
from milan_pipeline.codecs.registry import CodecSpec
from milan_pipeline.core.devices import device_of_process
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.core.progress import progress_bar, ticking
from milan_pipeline.errors import DataError
from milan_pipeline.images.views import view_numbers
from milan_pipeline.provenance.identity import require_hash
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.codec_sample import UNFITTED, stored_images
from milan_pipeline.targets.layout import OUTER_SHARD, UnitBlock, code_shape, read_identity
from milan_pipeline.targets.reader import StoredUnit, open_unit
from milan_pipeline.targets.units import AnyMark, Mark, Unit, unit_sha256, whole_mark
from milan_pipeline.targets.writer import UnitWriter

KEPT = "finished units are kept"
ROWS_AT_ONCE = 32
"""Samples that are encoded at a time; divides an outer shard. The floats and indices of a whole
outer shard would take a gigabyte in each thread."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recoder:
    """Reads rows of a unit and re-encodes them.

    Attributes:
        source: the codec that the rows are stored with.
        target: the codec that they are encoded with.
        device: where they are decoded and encoded.
    """

    source: Codec
    target: Codec
    device: torch.device

    def __call__(self, unit: StoredUnit, rows: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return rows of codes, prior and, where there is one, scale.

        Raises:
            DataError: an object is damaged, or a target is not finite or too large for the codec.
        """
        # A unit keeps the object that was read last: the large ones of codes are read in a row.
        scale_nN = torch.from_numpy(unit.values("scale", rows)) if unit.has("scale") else None
        parts = []
        for first in range(0, len(rows), ROWS_AT_ONCE):
            at = slice(first, first + ROWS_AT_ONCE)
            codes_nNC = torch.from_numpy(unit.values("codes", rows[at]))
            parts.append(
                self._recoded(Encoded(codes_nNC, None if scale_nN is None else scale_nN[at]))
            )
        found = {
            "codes": np.concatenate([part.codes_nNC.numpy() for part in parts]),
            "prior": self._prior(unit.values("prior", rows)),
        }
        scales = [part.scale_nN.numpy() for part in parts if part.scale_nN is not None]
        return found | ({"scale": np.concatenate(scales)} if scales else {})

    def _recoded(self, stored: Encoded) -> Encoded:
        encoded, fits_n = self.target.try_encode(self.source.decode(*stored.to(self.device)))
        if not bool(fits_n.all()):
            raise DataError(
                f"targets are not finite or too large for --codec {self.target.spec.name}; "
                "`milan-pipeline verify` tells which, and bfloat16 or a fitted codec takes large "
                "ones"
            )
        return encoded.to(torch.device("cpu"))

    def _prior(self, prior_nL: NDArray[Any]) -> NDArray[Any]:
        coded = self.target.spec.is_directional
        if coded == self.source.spec.is_directional:
            return prior_nL
        if not coded:
            return decode_prior(prior_nL)
        codes_nL: NDArray[Any] = encode_prior(torch.from_numpy(prior_nL)).numpy()
        return codes_nL


def new_codec(
    url: str,
    units: Sequence[tuple[Unit, AnyMark]],
    codec: Codec,
    spec: CodecSpec,
    stop: StopRequest,
) -> Codec:
    """Return the codec of a spec; if it needs fitting, fit it to targets of a store.

    It is fitted to the first images of the first view by the hash of their keys.

    Args:
        url: the store.
        units: finished units of the store, with their marks.
        codec: that of the store.
        spec: the wanted codec, settled for the targets' width.
        stop: asked before each unit of the sample, and after each step of the fit.

    Raises:
        DataError: there is no target to fit to, or one is not finite or cannot be read.
        InterruptedRunError: a stop was asked for.
        StorageError: the store cannot be read.
    """
    if not spec.needs_fit:
        return codec_of(spec.parameters())
    first = [(unit, mark) for unit, mark in units if unit.view == 0]
    full = next(((unit, mark) for unit, mark in first if mark.n), None)
    if full is None:
        raise DataError(f"{url} has no target in its first view to fit a codec to; extract some")
    patches = open_unit(url, *full).values("prior", [0]).shape[1]
    return fitted_codec(spec, stored_images(url, first, codec, patches, stop), stop)


def fitted_codec(spec: CodecSpec, tokens_nND: torch.Tensor, stop: StopRequest) -> JointCodec:
    """Fit a codec to targets, with a progress bar.

    Args:
        spec: a codec that needs fitting.
        tokens_nND: float targets, CLS first; `fit_codec`'s.
        stop: asked after each step.

    Raises:
        DataError: a target is not finite, or there is none.
        InterruptedRunError: a stop was asked for.
    """
    bar = progress_bar("fit codec", total=fit_steps(spec), unit="steps")
    with bar, ticking(bar):

        def progress(count: int) -> None:
            bar.update(count)
            stop.raise_if_asked(UNFITTED)

        return fit_codec(spec, tokens_nND, progress)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscodingSpec:
    """Which store is transcoded into which.

    Attributes:
        source: URL of the store that is read.
        source_hash: hash of its identity.
        dest: URL of the store that is written; its root and its codec are there.
        dest_hash: hash of its identity.
        device: where targets are decoded and encoded, or "auto".
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
            MismatchError: a store has another identity than this says.
            StorageError: a store cannot be read.
        """
        source, dest = read_identity(self.source), read_identity(self.dest)
        require_hash(source, self.source_hash, what=self.source)
        require_hash(dest, self.dest_hash, what=self.dest)
        recoder = Recoder(
            source=read_store_codec(self.source, source),
            target=read_store_codec(self.dest, dest),
            device=device_of_process(self.device, number=number),
        )
        return Transcoding(
            self, recoder, code_shape(dest), box_numbers=view_numbers(dest["view_policy"])
        )


class Transcoding(Work[tuple[Unit, AnyMark], Mark]):
    """Transcodes units; each is given with its mark in the store that is read."""

    def __init__(
        self,
        spec: TranscodingSpec,
        recoder: Recoder,
        shape: tuple[int, int],
        *,
        box_numbers: int,
    ) -> None:
        self._spec = spec
        self._recoder = recoder
        self._shape = shape  # (N, C) of one sample's new codes
        self._box_numbers = box_numbers

    def do(self, item: tuple[Unit, AnyMark], stop: StopRequest) -> Mark:
        """Transcode one unit and return its new mark; may stop before each outer shard.

        Raises:
            DataError: the unit is damaged, or cannot be encoded.
            InterruptedRunError: a stop was asked for.
            MismatchError: the unit was written over since it was listed.
            StorageError: a store cannot be read or written.
        """
        unit, known = item
        mark = whole_mark(self._spec.source, unit, known)
        stored = open_unit(self._spec.source, unit, mark)
        writer = UnitWriter(
            self._spec.dest,
            unit,
            identity_hash=self._spec.dest_hash,
            codec=self._recoder.target,
            shape=self._shape,
            box_numbers=self._box_numbers,
            source_unit=unit_sha256(mark),
        )
        for start in range(0, mark.n, OUTER_SHARD):
            stop.raise_if_asked(KEPT)
            writer.add(self._block(stored, range(start, min(start + OUTER_SHARD, mark.n))))
        return writer.finish(mark.skipped)

    def _block(self, unit: StoredUnit, rows: Sequence[int]) -> UnitBlock:
        recoded = self._recoder(unit, rows)
        return UnitBlock(
            key=unit.keys(rows),
            codes=recoded["codes"],
            scale=recoded.get("scale"),
            prior=recoded["prior"],
            **{name: unit.values(name, rows) for name in ("box", "flip", "size", "digest")},
        )
