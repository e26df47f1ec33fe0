"""Batches of views -> targets: run the teacher and encode on the device, copy the results back.

Legend: R rows that the teacher is given, n of them whose results are kept, N = 1 + L tokens,
L patches, D target width, C code width, S pixels.

Copies overlap with computing: on a GPU two streams of their own copy, and the main thread only
queues work. Another thread waits for the results. On the CPU nothing is copied and nothing waits.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import encode_prior, require_encodable
from milan_pipeline.core.device_copies import DeviceCopies, HostCopies
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.view_batches import PixelBuffers, ViewBatch
from milan_pipeline.targets.layout import UnitBlock


class TargetBatch(NamedTuple):
    """The results of a batch, perhaps still being computed or copied.

    Attributes:
        views: what they are computed from.
        good: n rows of the views that could be read.
        kept: n rows of the results that belong to these.
        results: codes, prior, whether each sample fits the codec and, if the codec has one, scale.
    """

    views: ViewBatch
    good: NDArray[np.int64]
    kept: NDArray[np.int64]
    results: HostCopies

    def to_block(self, buffers: PixelBuffers) -> UnitBlock:
        """Wait for the results, give the views' buffer back, and return the samples to be written.

        Raises:
            DataError: the teacher gave what cannot be encoded.
        """
        codes, prior, fits, *scale = (_rows(tensor, self.kept) for tensor in self.results.wait())
        views = self.views
        buffers.give_back(views.buffer_BCSS)
        keys = [views.keys[row] for row in self.good]
        bad = [key for key, fit in zip(keys, fits, strict=True) if not fit]
        require_encodable(not bad, f", for one, of {views.unit.shard.name}:{bad[0]}" if bad else "")
        return UnitBlock(
            key=keys,
            codes=codes,
            scale=scale[0] if scale else None,
            prior=prior,
            box=views.box[self.good],
            flip=views.flip[self.good],
            size=views.size[self.good],
            digest=views.digest[self.good],
        )


def compute(
    job: ExtractionJob, views: ViewBatch, good: NDArray[np.int64], copies: DeviceCopies
) -> TargetBatch:
    """Have the device run the teacher and encode its targets; returns before a GPU is done.

    Args:
        job: has the teacher and the codec.
        views: the batch.
        good: the rows of the batch that hold a view; at least one.
        copies: copies to the device and back.
    """
    pixels_RCSS, kept = _input(job, views, good)
    targets_RND, prior_RL = job.teacher(copies.to_device(pixels_RCSS))
    (codes_RNC, scale_RN), fits_R = job.codec.try_encode(targets_RND)
    # Weights that were copied with holes give zeros, which no loss can learn from.
    fits_R = fits_R & targets_RND.any(dim=-1).all(dim=-1)
    if job.codec.spec.prior_dtype == np.uint8:
        prior_RL = encode_prior(prior_RL)
    results = [codes_RNC, prior_RL, fits_R, *([] if scale_RN is None else [scale_RN])]
    return TargetBatch(views, good, kept, copies.to_host(results))


def _input(
    job: ExtractionJob, views: ViewBatch, good: NDArray[np.int64]
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    """Return the teacher's input, and which rows of its results are kept."""
    pixels_RCSS = views.buffer_BCSS[: views.rows]
    if job.pads:
        return pixels_RCSS, good
    if len(good) == len(views.keys):
        return pixels_RCSS[: len(good)], good
    return pixels_RCSS[torch.from_numpy(good)], np.arange(len(good))


def _rows(results: torch.Tensor, kept: NDArray[np.int64]) -> NDArray[Any]:
    """Take rows in ascending order; if they are the first rows, without a copy."""
    values: NDArray[Any] = results.numpy()
    return values[: len(kept)] if kept[-1] == len(kept) - 1 else values[kept]
