"""A random sample of stored targets against the teacher itself.

Legend: B batch, N = 1 + L tokens (CLS first), L patches, D target width.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import zarr
from torch.nn import functional as F

from milan_pipeline.codecs import Codec, decode_prior
from milan_pipeline.crops import view_pixels
from milan_pipeline.errors import DataError
from milan_pipeline.images import decode_rgb
from milan_pipeline.manifest import Manifest, keys_of, load_index
from milan_pipeline.shards import SampleReader
from milan_pipeline.teacher import Teacher
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.units import Mark, Unit
from milan_pipeline.verification import box_of, read_codes

LIVE_BATCH = 16


class Stored(NamedTuple):
    """One target as the store has it, and the pixels that the teacher saw."""

    unit: Unit
    key: str
    tokens_ND: torch.Tensor
    prior_L: torch.Tensor
    pixels_CHW: torch.Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One target, stored against recomputed.

    Attributes:
        unit: of the target.
        key: of the sample.
        mean: cosine, over all tokens.
        worst: the smallest cosine of a token.
        cls: the CLS token's cosine.
        prior_error: the largest absolute difference of a prior.
        fidelity: mean cosine of the recomputed tokens to those in fp32.
        lost: what the mean cosine of the recomputed tokens to themselves, once encoded and decoded,
            is short of 1; None for a codec that loses next to nothing.
    """

    unit: Unit
    key: str
    mean: float
    worst: float
    cls: float
    prior_error: float
    fidelity: float
    lost: float | None

    @property
    def cosine(self) -> float:
        """What a bound on cosines is held against.

        The worst token's. Of a codec that loses much, the mean, with what it loses given back: its
        single tokens may turn far when an index flips, and by as much the right way as the wrong.
        """
        return self.worst if self.lost is None else self.mean + self.lost


def draw_sample(
    units: Sequence[tuple[Unit, Mark]], count: int, seed: int
) -> list[tuple[Unit, Mark, list[int]]]:
    """Draw targets of some units without replacement: each unit with its rows, in order."""
    counts = [mark.n for _, mark in units]
    if not sum(counts):
        return []
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = np.sort(random.choice(sum(counts), min(count, sum(counts)), replace=False))
    ends = np.cumsum([0, *counts])
    pieces = np.split(drawn, np.searchsorted(drawn, ends[1:-1]))
    return [
        (unit, mark, (piece - start).tolist())
        for (unit, mark), piece, start in zip(units, pieces, ends[:-1], strict=True)
        if len(piece)
    ]


def stored_targets(
    store: str,
    images: Manifest,
    unit: Unit,
    mark: Mark,
    rows: Sequence[int],
    *,
    codec: Codec,
    size: int,
) -> Iterator[Stored]:
    """Read some targets of a unit and cut their views out of the images, by the stored boxes.

    Args:
        store: the target store.
        images: what it was made from.
        unit: a sound one.
        mark: of the unit.
        rows: of the unit's arrays.
        codec: of the store.
        size: pixels of the teacher's input.

    Raises:
        DataError: an image or a target is not what was written.
    """
    table = load_index(images, unit.shard)
    row_of = {key: row for row, key in enumerate(keys_of(table))}
    url = images.url_of(unit.shard)
    group = open_unit(store, unit, mark)
    keys, boxes, flips, priors = (
        np.asarray(_array(group, name)[:]) for name in ("key", "box", "flip", "prior")
    )
    arrays = {name: _array(group, name) for name in ("codes", "scale") if name in group}
    with contextlib.closing(SampleReader()) as reader:
        for row in rows:
            key = str(keys[row])
            place = table[row_of[key]]
            data = reader.read(url, *(int(place[at]) for at in ("offset", "length", "xxh3")))
            pixels = view_pixels(decode_rgb(data), box_of(boxes[row], flips[row]), size)
            tokens_ND = codec.decode(*read_codes(arrays, slice(row, row + 1)))[0]
            yield Stored(unit, key, tokens_ND, torch.from_numpy(decode_prior(priors[row])), pixels)


def compare(
    stored: Sequence[Stored],
    teacher: Teacher,
    reference: Teacher | None,
    codec: Codec | None = None,
) -> Iterator[Comparison]:
    """Recompute targets, and say how near the stored ones are.

    Args:
        stored: a batch.
        teacher: in the precision of the store.
        reference: the same in fp32; None where the store is in fp32.
        codec: of the store, if it is one that is fitted.
    """
    pixels_BCHW = torch.stack([target.pixels_CHW for target in stored])
    tokens_BND, prior_BL = (values.cpu() for values in teacher(pixels_BCHW))
    exact_BND = tokens_BND if reference is None else reference(pixels_BCHW)[0].cpu()
    fidelity_B = F.cosine_similarity(tokens_BND, exact_BND, dim=-1).mean(dim=1)
    lost_B = [None] * len(stored) if codec is None else _lost(codec, tokens_BND)
    for target, tokens_ND, prior_L, fidelity, lost in zip(
        stored, tokens_BND, prior_BL, fidelity_B.tolist(), lost_B, strict=True
    ):
        cosine_N = F.cosine_similarity(target.tokens_ND, tokens_ND, dim=-1)
        yield Comparison(
            unit=target.unit,
            key=target.key,
            mean=float(cosine_N.mean()),
            worst=float(cosine_N.min()),
            cls=float(cosine_N[0]),
            prior_error=float((target.prior_L - prior_L).abs().max()),
            fidelity=fidelity,
            lost=lost,
        )


def _lost(codec: Codec, tokens_BND: torch.Tensor) -> list[float]:
    decoded_BND = codec.decode(*codec.encode(tokens_BND))
    cosine_BN = F.cosine_similarity(decoded_BND, tokens_BND, dim=-1)
    lost_B: list[float] = (1 - cosine_BN.mean(dim=1)).tolist()
    return lost_B


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise DataError(f"{group.name}/{name} is no array; extract the unit again")
    return array
