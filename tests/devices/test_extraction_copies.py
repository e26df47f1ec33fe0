"""A batch of an extraction: pixels go to the GPU, targets come back, and nothing waits."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.device_copies import DeviceCopies
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.target_batches import compute
from milan_pipeline.extraction.view_batches import PixelBuffers, ViewBatch
from milan_pipeline.images.views import Interpolation, ViewPolicy
from tests.support.fake_gpu import GPU, Copy, fake_gpu
from tests.support.fitted import FITTED, TOKEN_WIDTH, fitted

ROWS, SIDE, PATCHES = 4, 8, 9


class Zeros:
    """A teacher whose targets are zeros."""

    image_size, grid, width, device = SIDE, (3, 3), TOKEN_WIDTH, GPU
    interpolation: Interpolation = "bicubic"

    def __call__(self, pixels_BCSS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert pixels_BCSS.device == GPU
        targets = torch.zeros(len(pixels_BCSS), 1 + PATCHES, TOKEN_WIDTH, device=GPU)
        return targets, torch.zeros(len(pixels_BCSS), PATCHES, device=GPU)


def views(buffer: torch.Tensor) -> ViewBatch:
    unit: Any = None
    rows = np.zeros(ROWS)
    return ViewBatch(
        unit=unit,
        last=True,
        keys=list("abcd"),
        digest=rows.astype(np.uint64),
        rows=ROWS,
        buffer_BCSS=buffer,
        box=rows.astype(np.float32),
        flip=rows.astype(np.bool_),
        size=rows.astype(np.int32),
    )


@pytest.mark.parametrize("name", ["float16", "int8", FITTED[0]])
def test_a_batch_is_one_copy_there_and_its_results_back(name: str) -> None:
    codec = make_codec(name) if name in ("float16", "int8") else fitted(name)
    nothing: Any = None
    job = ExtractionJob(
        manifest=nothing,
        store="",
        identity_hash="",
        teacher=Zeros(),
        policy=ViewPolicy(seed=0, scale=(0.2, 1.0)),
        codec=codec,
        batch_size=ROWS,
        workers=0,
    )
    units: Any = [SimpleNamespace(shard=SimpleNamespace(samples=ROWS))]
    with fake_gpu() as copies:
        codec.try_encode(Zeros()(torch.zeros(1, device=GPU))[0])  # the tables go to the GPU
        copies.made.clear()
        buffer = PixelBuffers.of(job, units).take()
        batch = compute(job, views(buffer), np.arange(ROWS), DeviceCopies(GPU))
        back = [Copy("cpu", tensor.nbytes, waits=False) for tensor in batch.results.tensors]
        assert copies.made == [Copy("cuda", ROWS * 3 * SIDE * SIDE, waits=False), *back]
