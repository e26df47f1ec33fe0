"""Features of images: decode, cut a view, encode; threads decode ahead of the encoder.

Legend: N samples, F features, H, W pixels, C = 3 channels.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.crops import view_pixels
from milan_pipeline.encoders import FrozenEncoder
from milan_pipeline.errors import BadImageError, DataError
from milan_pipeline.images import decode_rgb
from milan_pipeline.parallel import ordered_map
from milan_pipeline.progress import progress_bar
from milan_pipeline.views import Box, center_crop

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Bad = tuple[int, str]
Cut = Callable[[int, int, str], Box]


def central(height: int, width: int, key: str) -> Box:
    """Cut the largest central square, whatever the sample."""
    del key
    return center_crop(height, width)


def extract_features(
    encoder: FrozenEncoder,
    samples: Iterable[tuple[bytes, int, str]],
    *,
    total: int,
    batch_size: int = 64,
    workers: int = 2,
    pool: str = "cls",
    cut: Cut = central,
    description: str = "features",
) -> tuple[Features, Labels, list[Bad]]:
    """Encode one view of every image; threads decode ahead while the encoder computes.

    Args:
        encoder: what to judge.
        samples: bytes of an image, its label and its name.
        total: number of samples, for the progress bar.
        batch_size: images at a time; the features do not depend on it but for rounding.
        workers: decoding threads; 0 decodes in between.
        pool: one of `encoders.POOLS`.
        cut: what to show the encoder of an image of (height, width, name).
        description: beside the progress bar.

    Returns:
        features_NF float32 and labels_N int64 in the samples' order, and what was left out as
        (position, reason).

    Raises:
        DataError: no image could be decoded, or a feature is not finite.
    """
    bad: list[Bad] = []
    labels: list[int] = []
    batches: list[torch.Tensor] = []
    views = ordered_map(
        lambda sample: (_view(sample[0], sample[2], cut, encoder.image_size), sample[1]),
        samples,
        workers=workers,
        ahead=2 * batch_size,
    )
    with progress_bar(description, total=total) as bar:
        for batch in _batches(views, batch_size, labels, bad):
            batches.append(encoder.features(torch.stack(batch), pool=pool))
            bar.update(len(batch))
    if not batches:
        raise DataError(f"none of {len(bad)} images could be decoded; give other images")
    features_NF: Features = torch.cat(batches).numpy()
    if not np.isfinite(features_NF).all():
        raise DataError(
            f"encoder {encoder.name!r} gives infinite or NaN features; its training has diverged"
        )
    return features_NF, np.array(labels, dtype=np.int64), bad


def _view(data: bytes, name: str, cut: Cut, size: int) -> torch.Tensor | str:
    """Return the view, or why there is none."""
    try:
        rgb_HWC = decode_rgb(data)
    except BadImageError as error:
        return str(error)
    height, width, _ = rgb_HWC.shape
    return view_pixels(rgb_HWC, cut(height, width, name), size)


def _batches(
    views: Iterable[tuple[torch.Tensor | str, int]],
    batch_size: int,
    labels: list[int],
    bad: list[Bad],
) -> Iterator[list[torch.Tensor]]:
    """Group views into batches and note their labels; what is no view goes to `bad`."""
    batch: list[torch.Tensor] = []
    for position, (view, label) in enumerate(views):
        if isinstance(view, str):
            bad.append((position, view))
            continue
        batch.append(view)
        labels.append(label)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch
