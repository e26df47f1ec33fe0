"""Targets from one codec to another, without a teacher: decoded and encoded again, prior included.

Always in the same blocks of rows, so that the bytes do not depend on who asks or how often: packing
with another codec gives what transcoding and then packing gives.

Legend: n samples, N = 1 + L tokens, L patches, D target width, C code width.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from milan_pipeline.codec_sample import stored_sample, thinned
from milan_pipeline.codec_spec import UNFITTED
from milan_pipeline.codecs import (
    Codec,
    CodecSpec,
    codec_of,
    decode_prior,
    encode_prior,
    spec_of,
)
from milan_pipeline.codecs.fitting import codebooks, fit_codec
from milan_pipeline.errors import DataError
from milan_pipeline.identity import Identity, transcoded_identity
from milan_pipeline.interrupts import StopRequest
from milan_pipeline.progress import progress_bar
from milan_pipeline.units import Mark, Unit
from milan_pipeline.verification import read_codes

ROWS_AT_ONCE = 32
"""Samples that are re-encoded at a time: a divisor of an outer shard, of which a whole one, taken
to floats and indices, would fill a gigabyte in each thread."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recoder:
    """Reads rows of a unit and re-encodes them.

    Attributes:
        source: codec that they are stored with.
        target: codec that they become.
        device: that decodes and encodes.
    """

    source: Codec
    target: Codec
    device: torch.device

    def __call__(self, unit: zarr.Group, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return rows `start:stop` of codes, prior and, where there is one, scale.

        Raises:
            DataError: an object is damaged, or a target is not finite or too large for the codec.
        """
        arrays = {name: unit[name] for name in ("codes", "scale") if name in unit}
        codes_nNC, scale_nN = read_codes(arrays, slice(start, stop))  # type: ignore[arg-type]
        parts = [
            self._recoded(codes_nNC[rows], None if scale_nN is None else scale_nN[rows])
            for rows in _slices(stop - start)
        ]
        prior_nL = np.asarray(unit["prior"][start:stop])  # type: ignore[index]
        found = {
            "codes": np.concatenate([codes.numpy() for codes, _ in parts]),
            "prior": self._prior(prior_nL),
        }
        scales = [scale.numpy() for _, scale in parts if scale is not None]
        return found | ({"scale": np.concatenate(scales)} if scales else {})

    def _recoded(
        self, codes_nNC: torch.Tensor, scale_nN: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        scale_nN = None if scale_nN is None else scale_nN.to(self.device)
        tokens_nND = self.source.decode(codes_nNC.to(self.device), scale_nN)
        encoded, fits_n = self.target.try_encode(tokens_nND)
        if not bool(fits_n.all()):
            raise DataError(
                f"targets are not finite or too large for --codec {self.target.spec.name}; "
                "`milan-pipeline verify` tells which, and bfloat16 or a fitted codec takes large "
                "ones"
            )
        scale = encoded.scale_nN
        return encoded.codes_nNC.cpu(), None if scale is None else scale.cpu()

    def _prior(self, prior_nL: NDArray[Any]) -> NDArray[Any]:
        coded = self.target.spec.needs_fit
        if coded == self.source.spec.needs_fit:
            return prior_nL
        if not coded:
            return decode_prior(prior_nL)
        codes_nL: NDArray[Any] = encode_prior(torch.from_numpy(prior_nL)).numpy()
        return codes_nL


def code_shape(identity: Identity) -> tuple[int, int]:
    """Return (N, C) of the codes of one sample of an identity's targets."""
    height, width = identity["teacher"]["grid"]
    return 1 + height * width, spec_of(identity["codec"]).code_width(identity["teacher"]["width"])


def likely_identity_of(source: Identity, spec: CodecSpec, existing: Identity | None) -> Identity:
    """Build the identity of transcoded targets before the codec is fitted.

    Args:
        source: of the targets that are decoded.
        spec: the codec, settled for their width.
        existing: of the targets that are there already, whose fitted arrays would be gone on with.
    """
    arrays = (existing or {}).get("codec", {}).get("arrays", UNFITTED)
    return transcoded_identity(source, spec.parameters(arrays))


def new_codec(
    url: str,
    units: Sequence[tuple[Unit, Mark]],
    codec: Codec,
    spec: CodecSpec,
    stop: StopRequest,
) -> Codec:
    """Return the codec of a spec, fitted, where it needs that, to the targets of a store.

    They are those of the first view's first images by the hash of their keys.

    Args:
        url: the store.
        units: finished ones, with their marks.
        codec: of the store.
        spec: the codec that is wanted, settled for the targets' width.
        stop: is asked after each codebook.

    Raises:
        DataError: there is no target to fit to, or one is not finite or cannot be read.
        InterruptedRunError: a stop was asked for.
        StorageError: the store cannot be read.
    """
    if not spec.needs_fit:
        return codec_of(spec.parameters())
    first = [(unit, mark) for unit, mark in units if unit.view == 0]
    if not any(mark.n for _, mark in first):
        raise DataError(f"{url} has no target in its first view to fit a codec to; extract some")
    tokens_TD = thinned(stored_sample(url, first, codec))
    with progress_bar("fit codec", total=codebooks(spec), unit="codebooks") as bar:

        def progress(count: int) -> None:
            bar.update(count)
            stop.raise_if_asked("nothing is fitted yet")

        return fit_codec(spec, tokens_TD, progress)


def _slices(rows: int) -> list[slice]:
    return [slice(first, first + ROWS_AT_ONCE) for first in range(0, rows, ROWS_AT_ONCE)]
