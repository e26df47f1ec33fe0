"""Compare a random sample of stored targets with what the teacher computes now.

Legend: u units, s targets of the sample, B batch, N = 1 + L tokens (CLS first), L patches, D target
width.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from milan_pipeline.codecs.fidelity import Cosines, cosines_of
from milan_pipeline.codecs.interface import LARGEST_FACTOR, Codec
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import Interpolation, ViewPolicy
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.random_access import SampleReader
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.stored_codes import decoded_targets
from milan_pipeline.targets.units import Mark, Unit
from milan_pipeline.teacher.teacher import Teacher

LIVE_BATCH = 16


class StoredTarget(NamedTuple):
    """One target as the store has it, and the pixels of its view."""

    unit: Unit
    key: str
    tokens_ND: torch.Tensor
    prior_L: torch.Tensor
    pixels_CHW: torch.Tensor
    codec: Codec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """One stored target compared with the recomputed one.

    Attributes:
        unit: the target's unit.
        key: the sample's key.
        mean: mean cosine of all tokens, as `likeness` defines it.
        worst: smallest such cosine of a token.
        cls: such a cosine of the CLS token.
        prior_error: largest absolute difference of a prior; for coded priors, beyond their step.
        fidelity: mean cosine of the recomputed tokens to tokens in fp32.
        codec_cosines: of the stored tokens to the recomputed tokens, unadjusted, one sample's.
    """

    unit: Unit
    key: str
    mean: float
    worst: float
    cls: float
    prior_error: float
    fidelity: float
    codec_cosines: Cosines


def draw_sample(targets_u: NDArray[np.int64], count: int, seed: int) -> dict[int, list[int]]:
    """Draw targets of some units without replacement.

    Args:
        targets_u: how many targets each unit has.
        count: how many to draw, if there are so many.
        seed: of the choice.

    Returns:
        The rows that were drawn of a unit, ascending, by the unit's number, ascending.
    """
    ends_u = np.cumsum(targets_u)
    total = int(targets_u.sum())
    if not total:
        return {}
    random = np.random.Generator(np.random.PCG64(seed))
    drawn_s = np.sort(random.choice(total, min(count, total), replace=False))
    unit_s = np.searchsorted(ends_u, drawn_s, side="right")
    row_s = drawn_s - (ends_u - targets_u)[unit_s]
    return {int(unit): row_s[unit_s == unit].tolist() for unit in np.unique(unit_s)}


def targets_with_pixels(
    store: str,
    images: Manifest,
    unit: Unit,
    mark: Mark,
    rows: Sequence[int],
    *,
    codec: Codec,
    size: int,
    interpolation: Interpolation = "bicubic",
    policy: ViewPolicy | None = None,
) -> Iterator[StoredTarget]:
    """Read some targets of a unit and cut their views out of the images, by the stored boxes.

    Args:
        store: the target store.
        images: the image shards that it was made from.
        unit: a unit that is sound.
        mark: the unit's mark.
        rows: rows of the unit.
        codec: that of the store.
        size: input size of the teacher in pixels.
        interpolation: by which views are resized for it.
        policy: how the views were drawn; None if the teacher saw what is stored.

    Raises:
        DataError: an image or a target is not what was written.
    """
    table = load_index(images, unit.shard)
    row_of = {key: row for row, key in enumerate(keys_of(table))}
    url = images.url_of(unit.shard)
    stored = open_unit(store, unit, mark)
    read = zip(rows, stored.keys(rows), stored.boxes(rows), stored.prior(rows), strict=True)
    with contextlib.closing(SampleReader()) as reader:
        for row, key, box, prior_L in read:
            place = table[row_of[key]]
            data = reader.read(url, *(int(place[at]) for at in ("offset", "length", "xxh3")))
            seen = box if policy is None else policy.for_teacher(box)
            pixels = view_pixels(decode_rgb(data), seen, size, interpolation=interpolation)
            # one by one: many codes lie between rows
            tokens_ND = decoded_targets(stored, codec, [row])[0]
            yield StoredTarget(unit, key, tokens_ND, torch.from_numpy(prior_L), pixels, codec)


def compare(
    stored: Sequence[StoredTarget], teacher: Teacher, reference: Teacher | None
) -> Iterator[Comparison]:
    """Recompute targets and compare the stored ones with them.

    Args:
        stored: a batch of targets of one store.
        teacher: the teacher in the precision of the store.
        reference: the same teacher in fp32; None if the store is in fp32.
    """
    pixels_BCHW = torch.stack([target.pixels_CHW for target in stored])
    tokens_BND, prior_BL = (values.cpu() for values in teacher(pixels_BCHW))
    exact_BND = tokens_BND if reference is None else reference(pixels_BCHW)[0].cpu()
    fidelity_B = F.cosine_similarity(tokens_BND, exact_BND, dim=-1).mean(dim=1)
    stored_BND = torch.stack([target.tokens_ND for target in stored])
    all_BN, rest_BN = cosines_of(tokens_BND, stored_BND)
    likeness_BN = likeness(stored_BND, tokens_BND, stored[0].codec)
    for number, target in enumerate(stored):
        yield Comparison(
            unit=target.unit,
            key=target.key,
            mean=float(likeness_BN[number].mean()),
            worst=float(likeness_BN[number].min()),
            cls=float(likeness_BN[number, 0]),
            prior_error=_prior_error(target, prior_BL[number]),
            fidelity=float(fidelity_B[number]),
            codec_cosines=Cosines(all_BN[[number]], rest_BN[[number]]),
        )


def likeness(stored_BND: torch.Tensor, live_BND: torch.Tensor, codec: Codec) -> torch.Tensor:
    """Return the cosine (B, N) of stored tokens to live ones, without a small codec's own error.

    The codec's own error is the angle between a live token and its decoded code. A stored token may
    be off by the same angle: the cosine returned is that of the angle beyond it. If the last bits
    of a live token select other codes, these are about as near as the stored codes: with noise of a
    hundredth of a token's length, the worst of 16,640 tokens of the demo was 5 degrees farther,
    even with two bytes a token. A cosine of 0.99 is 8 degrees.
    """
    if not codec.spec.is_directional:
        return F.cosine_similarity(stored_BND, live_BND, dim=-1)
    coded_BND = codec.decode(*codec.encode(live_BND))
    farther_BN = _angle(stored_BND, live_BND) - _angle(coded_BND, live_BND)
    return farther_BN.clamp_min(0).cos()


def _angle(left_BND: torch.Tensor, right_BND: torch.Tensor) -> torch.Tensor:
    """Return angles (B, N), computed in float64, since small angles hardly change the cosine."""
    cosine_BN = F.cosine_similarity(left_BND.double(), right_BND.double(), dim=-1)
    return cosine_BN.clamp(-1, 1).acos()


def _prior_error(target: StoredTarget, live_L: torch.Tensor) -> float:
    factor = LARGEST_FACTOR if target.codec.spec.prior_dtype == np.uint8 else 1.0
    low_L, high_L = target.prior_L / factor, target.prior_L * factor
    return float(torch.maximum(low_L - live_L, live_L - high_L).max().clamp_min(0))
