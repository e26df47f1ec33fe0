"""Extracts features of images; threads decode ahead of the encoder.

Legend: N samples, F features, H, W pixels, C = 3 channels.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from milan_pipeline.core.device_copies import DeviceCopies, HostCopies, stacked
from milan_pipeline.core.progress import progress_bar
from milan_pipeline.core.threads import ordered_map
from milan_pipeline.encoders.frozen import FrozenEncoder
from milan_pipeline.errors import BadImageError, DataError
from milan_pipeline.evaluate.evaluation_view import default_crop_pct, evaluation_view
from milan_pipeline.images.decode import decode_rgb

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Bad = tuple[int, str]
Show = Callable[[NDArray[np.uint8], str], torch.Tensor]


def evaluated(image_size: int, crop_pct: float | None = None) -> Show:
    """Return what makes the evaluation view of an image, whatever its name.

    Args:
        image_size: height and width of the view, in pixels.
        crop_pct: see `evaluation_view`; None is the official code's.
    """
    view = evaluation_view(image_size, crop_pct or default_crop_pct(image_size))
    return lambda rgb_HWC, _: view(Image.fromarray(rgb_HWC))


def extract_features(
    encoder: FrozenEncoder,
    samples: Iterable[tuple[bytes, int, str]],
    *,
    total: int,
    batch_size: int = 64,
    workers: int = 2,
    pool: str = "cls",
    show: Show | None = None,
    description: str = "features",
) -> tuple[Features, Labels, list[Bad]]:
    """Encode one view of every image; threads decode ahead while the encoder computes.

    Args:
        encoder: gives the features.
        samples: bytes of an image, its label and its name.
        total: number of samples, for the progress bar.
        batch_size: images at a time; features depend on it in their rounding alone.
        workers: decoding threads; 0 decodes in the calling thread.
        pool: one of `frozen.POOLS`.
        show: makes the encoder's input from an image, (H, W, 3) uint8, and its name; None makes the
            evaluation view.
        description: shown beside the progress bar.

    Returns:
        features_NF float32 and labels_N int64 in the samples' order, and (position, reason) of each
        image that was left out.

    Raises:
        DataError: no image could be decoded, or a feature is not finite.
    """
    bad: list[Bad] = []
    labels: list[int] = []
    shown = evaluated(encoder.image_size) if show is None else show
    views = ordered_map(
        lambda sample: (_view(sample[0], sample[2], shown), sample[1]),
        samples,
        workers=workers,
        ahead=2 * batch_size,
    )
    found: list[torch.Tensor] = []
    with progress_bar(description, total=total) as bar:
        for features_BF in encoded(encoder, _batches(views, batch_size, labels, bad), pool):
            found.append(features_BF)
            bar.update(len(features_BF))
    if not found:
        raise DataError(f"none of {len(bad)} images could be decoded; give other images")
    features_NF: Features = torch.cat(found).numpy()
    if not np.isfinite(features_NF).all():
        raise DataError(
            f"encoder {encoder.name!r} gives infinite or NaN features; its training has diverged"
        )
    return features_NF, np.array(labels, dtype=np.int64), bad


def encoded(
    encoder: FrozenEncoder, batches: Iterable[list[torch.Tensor]], pool: str
) -> Iterator[torch.Tensor]:
    """Yield each batch's features on the host; a GPU computes one batch while the next is made."""
    copies = DeviceCopies(encoder.device)
    before: HostCopies | None = None
    for batch in batches:
        there = copies.to_device(stacked(batch, encoder.device))
        after = copies.to_host([encoder.features(there, pool=pool)])
        if before is not None:
            yield before.wait()[0].clone()  # from page-locked memory, of which there is little
        before = after
    if before is not None:
        yield before.wait()[0].clone()


def _view(data: bytes, name: str, show: Show) -> torch.Tensor | str:
    """Return the view, or the reason why the image cannot be decoded."""
    try:
        rgb_HWC = decode_rgb(data, name)
    except BadImageError as error:
        return str(error)
    return show(rgb_HWC, name)


def _batches(
    views: Iterable[tuple[torch.Tensor | str, int]],
    batch_size: int,
    labels: list[int],
    bad: list[Bad],
) -> Iterator[list[torch.Tensor]]:
    """Group views into batches and note their labels; unreadable images go to `bad`."""
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
