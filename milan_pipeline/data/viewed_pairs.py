"""Iterate over pairs from Python: the pixels of a view, and the teacher's output for it.

Pairs come in the order of the shards and are decoded one by one, for inspection or for a loader of
your own. Training uses `stream.py`, which shuffles, draws masks and moves only what is needed.

Legend: S side of the view in pixels, N = 1 + L tokens (CLS first, then L patches row-major), D
target width.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import Codec, decode_prior
from milan_pipeline.data.pair_table import PairTable, join_pairs
from milan_pipeline.data.pairs import read_pairs
from milan_pipeline.errors import DataError, MismatchError
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import Box
from milan_pipeline.provenance.identity import stated_identity
from milan_pipeline.shards.columns import read_image_columns, read_target_columns
from milan_pipeline.shards.random_access import Place
from milan_pipeline.targets.codec_files import read_shards_codec
from milan_pipeline.targets.shard_records import layout_of


class ViewedPair(NamedTuple):
    """A view of an image and its target.

    Attributes:
        key: of the sample.
        view: number of the view, from 0.
        pixels_CSS: (3, S, S) uint8, cut from the image as it was for the teacher.
        tokens_ND: float32; a fitted codec keeps their directions, not their lengths.
        prior_L: float32, above zero.
    """

    key: str
    view: int
    pixels_CSS: torch.Tensor
    tokens_ND: torch.Tensor
    prior_L: NDArray[np.float32]


def iterate_pairs(
    *, images: str, targets: str, views: int = 1, image_size: int | None = None
) -> Iterator[ViewedPair]:
    """Yield every pair, view by view, shard by shard, in the image shards' order.

    Args:
        images: folder of image shards.
        targets: folder of their target shards.
        views: number of views, from view 0.
        image_size: S; None is the size of the teacher's views.

    Raises:
        MissingDataError: images and targets do not belong together, sample by sample.
        MismatchError: targets are of other images.
        DataError: something read is damaged.
    """
    target_shards = read_target_columns(targets)
    identity = stated_identity(target_shards.shards.head.common, what=targets)
    pairs = join_pairs(read_image_columns(images), target_shards, views=views, on_missing="error")
    layout, codec = layout_of(identity), read_shards_codec(targets, identity)
    size = image_size or int(identity["preprocessing"]["size"])
    for pair in read_pairs(pairs, _places(pairs)):
        record = layout.from_bytes(pair.target)
        yield ViewedPair(
            key=pair.key,
            view=pair.place.view,
            pixels_CSS=student_view(
                pair.image, record, image_size=size, digest=pair.digest, key=pair.key
            ),
            tokens_ND=_decoded(codec, record),
            prior_L=decode_prior(record["prior"]),
        )


def _places(pairs: PairTable) -> Iterator[Place]:
    for view in range(len(pairs.views)):
        for number, count in enumerate(pairs.counts(view).tolist()):
            for row in range(count):
                yield Place(epoch=view, view=view, shard=number, row=row)


def _decoded(codec: Codec, record: NDArray[np.void]) -> torch.Tensor:
    codes_1NC = torch.from_numpy(record["codes"].copy())[None]
    scale_1N = torch.from_numpy(record["scale"].copy())[None] if codec.spec.has_scale else None
    return codec.decode(codes_1NC, scale_1N)[0]


def student_view(
    image: bytes, record: NDArray[np.void], *, image_size: int, digest: int, key: str
) -> torch.Tensor:
    """Cut the view that the teacher saw: (3, S, S) uint8.

    Raises:
        DataError: the image cannot be decoded, or the stored box is not inside it.
        MismatchError: the target was made from other image bytes.
    """
    if int(record["digest"]) != digest:
        raise MismatchError(
            f"the target of {key!r} was made from other image bytes (digest "
            f"{int(record['digest']):016x}, now {digest:016x}); extract and pack it again"
        )
    rgb_HWC = decode_rgb(image, key)
    box = _box_inside(record, *rgb_HWC.shape[:2])
    return view_pixels(rgb_HWC, box, image_size)


def _box_inside(record: NDArray[np.void], height: int, width: int) -> Box:
    """Return the box that a record stores; refuse one that is not inside the image."""
    stored = [float(value) for value in record["box"]]
    top, left, rows, columns = stored
    # Compared as floats, so that NaN is refused too.
    inside = 0 <= top <= height - rows and 0 <= left <= width - columns
    if not (inside and rows >= 1 and columns >= 1):
        raise DataError(
            f"the target's box {stored} (top, left, height, width) is not inside the image of "
            f"{height}x{width} pixels; extract and pack it again"
        )
    return Box(int(top), int(left), int(rows), int(columns), bool(record["flip"]))
