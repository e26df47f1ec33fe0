"""Pairs for Python: the pixels of a view, and the teacher's output for it.

They are decoded one by one, for inspection or for a training loop of your own. Our own training
uses `stream.py`, which shuffles, draws masks and moves only what is needed.

Legend: S side of the view in pixels, N = 1 + L tokens (CLS first, then L patches row-major), D
target width.
"""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from milan_pipeline.codecs.interface import Codec, decode_prior
from milan_pipeline.data.join_pairs import join_pairs
from milan_pipeline.data.pairs import RawPair, read_pair, read_pairs
from milan_pipeline.errors import ConfigError, DataError, MismatchError
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.images.views import (
    PLACE_NUMBERS,
    Box,
    Interpolation,
    box_of,
    stated_interpolation,
)
from milan_pipeline.provenance.identity import stated_identity
from milan_pipeline.shards.columns import read_image_columns, read_target_columns
from milan_pipeline.shards.random_access import Place, SampleReader
from milan_pipeline.targets.codec_files import read_shards_codec
from milan_pipeline.targets.shard_records import layout_of

Folder = str | os.PathLike[str]


class ViewedPair(NamedTuple):
    """A view of an image and its target.

    Attributes:
        key: of the sample.
        view: number of the view, from 0.
        pixels_CSS: (3, S, S) uint8, cut and resized as they were for the teacher. Where the teacher
            saw clean views, these have the changes of colours that it did not see.
        tokens_ND: float32; a fitted codec keeps their directions, not their lengths.
        prior_L: float32, above zero.
    """

    key: str
    view: int
    pixels_CSS: torch.Tensor
    tokens_ND: torch.Tensor
    prior_L: NDArray[np.float32]


class PairDataset(Dataset[ViewedPair]):
    """All pairs by number, for torch's `DataLoader`: view by view, in the image shards' order.

    Remote shards are read one sample at a time, which is slow; copy them first, or take
    `iterate_pairs`, which reads ahead.

    Args:
        images: folder of image shards.
        targets: folder of their target shards.
        views: number of views, from view 0.
        image_size: S; None is the size of the teacher's views.

    Raises:
        ConfigError: there are not so many views, or a view has no pixels.
        MissingDataError: images and targets do not belong together, sample by sample.
        MismatchError: targets are of other images.
        DataError: something read is damaged.
    """

    def __init__(
        self, *, images: Folder, targets: Folder, views: int = 1, image_size: int | None = None
    ) -> None:
        images, targets = os.fspath(images), os.fspath(targets)
        target_shards = read_target_columns(targets)
        _require_views(views, 1 + int(target_shards.view_t.max(initial=-1)), targets)
        identity = stated_identity(target_shards.shards.head.common, what=targets)
        columns = read_image_columns(images)
        self._pairs = join_pairs(columns, [target_shards], views=views, on_missing="error")
        self._layout, self._codec = layout_of(identity), read_shards_codec(targets, identity)
        own = int(identity["preprocessing"]["size"])
        self._size = own if image_size is None else _pixels(image_size)
        self._interpolation = stated_interpolation(identity["preprocessing"])
        counts = [self._pairs.counts(view) for view in range(views)]
        self._ends = np.cumsum(np.concatenate(counts))
        self._parts = [(view, n) for view, own in enumerate(counts) for n in range(len(own))]
        self._reader = SampleReader()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> ViewedPair:
        """Return a pair by its number; raises what opening does, and IndexError."""
        place = self._place(range(len(self))[number])
        reader = self._reader
        return self._viewed(
            read_pair(self._pairs, place, lambda file, *at: reader.read(file.url, *at))
        )

    def __iter__(self) -> Iterator[ViewedPair]:
        """Yield every pair in order; remote shards are read ahead."""
        for pair in read_pairs(self._pairs, map(self._place, range(len(self)))):
            yield self._viewed(pair)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out open files, where the dataset is sent to a loader's process."""
        return vars(self) | {"_reader": SampleReader()}

    def _place(self, number: int) -> Place:
        at = int(np.searchsorted(self._ends, number, side="right"))
        view, shard = self._parts[at]
        before = int(self._ends[at - 1]) if at else 0
        return Place(epoch=view, view=view, shard=shard, row=number - before)

    def _viewed(self, pair: RawPair) -> ViewedPair:
        record = self._layout.from_bytes(pair.targets[0])
        return ViewedPair(
            key=pair.key,
            view=pair.place.view,
            pixels_CSS=stored_view(
                pair.image,
                record,
                image_size=self._size,
                digest=pair.digest,
                key=pair.key,
                interpolation=self._interpolation,
            ),
            tokens_ND=_decoded(self._codec, record),
            prior_L=decode_prior(record["prior"]),
        )


def iterate_pairs(
    *, images: Folder, targets: Folder, views: int = 1, image_size: int | None = None
) -> Iterator[ViewedPair]:
    """Yield every pair, view by view, shard by shard; see `PairDataset`, which also raises."""
    yield from PairDataset(images=images, targets=targets, views=views, image_size=image_size)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _pixels(size: Any) -> int:
    if not _is_whole(size) or size < 1:
        raise ConfigError(f"image_size={size!r} is no number of pixels; give 1 or more, or None")
    return int(size)


def _require_views(views: Any, packed: int, targets: str) -> None:
    if not _is_whole(views) or not 1 <= views <= packed:
        raise ConfigError(
            f"views={views!r} is no whole number from 1 to {packed}, the views that {targets} "
            "holds; give one, or pack more views"
        )


def _decoded(codec: Codec, record: NDArray[np.void]) -> torch.Tensor:
    codes_1NC = torch.from_numpy(record["codes"].copy())[None]
    scale_1N = torch.from_numpy(record["scale"].copy())[None] if codec.spec.has_scale else None
    return codec.decode(codes_1NC, scale_1N)[0]


def stored_view(
    image: bytes,
    record: NDArray[np.void],
    *,
    image_size: int,
    digest: int,
    key: str,
    interpolation: Interpolation = "bicubic",
) -> torch.Tensor:
    """Cut the view that a record stores: (3, S, S) uint8.

    Args:
        image: the bytes of the image file.
        record: of the target, with its box, its flip and the digest of the image.
        image_size: S; the teacher's or the student's.
        digest: of `image`.
        key: of the sample.
        interpolation: that of the teacher gives the teacher's pixels. A student's are bicubic.

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
    return view_pixels(rgb_HWC, box, image_size, interpolation=interpolation)


def _box_inside(record: NDArray[np.void], height: int, width: int) -> Box:
    """Return the box that a record stores; refuse one that is not inside the image."""
    numbers = [float(value) for value in record["box"]]
    stored = numbers[:PLACE_NUMBERS]
    top, left, rows, columns = stored
    # Compared as floats, so that NaN is refused too.
    inside = 0 <= top <= height - rows and 0 <= left <= width - columns
    if not (inside and rows >= 1 and columns >= 1):
        raise DataError(
            f"the target's box {stored} (top, left, height, width) is not inside the image of "
            f"{height}x{width} pixels; extract and pack it again"
        )
    return box_of(numbers, flip=bool(record["flip"]))
