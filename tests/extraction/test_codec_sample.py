"""The sample that extraction fits a codec to: which images it takes, in batches of one shape."""

from pathlib import Path

import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.extraction.codec_sample import extracted_sample
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.targets.codec_sample import stored_sample
from milan_pipeline.targets.unit_list import list_units
from tests.support.extraction import RowTeacher, extract, job_on


def sample(
    job: ExtractionJob, *, batch_size: int = 4, count: int = 6, stop: StopRequest | None = None
) -> tuple[torch.Tensor, list[int]]:
    """Draw a sample; return it and the rows of each batch."""
    teacher = RowTeacher()
    found = extracted_sample(
        job.manifest,
        teacher,
        job.policy,
        batch_size=batch_size,
        workers=2,
        stop=stop or StopRequest(),
        count=count,
    )
    return found, teacher.batches


@pytest.mark.parametrize("count", [1, 6, 99])
def test_it_is_what_transcoding_would_fit_to(tmp_path: Path, count: int) -> None:
    job = job_on(tmp_path, [5, 0, 9], codec=make_codec("float16"))
    units = list_units(job.manifest, 1)
    stored = stored_sample(
        job.store, list(zip(units, extract(job, units), strict=True)), job.codec, count=count
    )
    found, _ = sample(job, count=count)
    assert len(found) == min(count, 14)
    assert torch.equal(found.half().float(), stored)


@pytest.mark.parametrize(("batch_size", "batches"), [(4, [4, 4]), (6, [6]), (64, [6])])
def test_batches_of_one_shape(tmp_path: Path, batch_size: int, batches: list[int]) -> None:
    job = job_on(tmp_path, [5, 0, 9])
    found, seen = sample(job, batch_size=batch_size)
    assert seen == batches
    assert torch.equal(found, sample(job)[0])


def test_unreadable_images_are_passed_over(tmp_path: Path) -> None:
    job = job_on(tmp_path, [9], bad=["0/0", "0/1", "0/7"])
    whole = job_on(tmp_path / "whole", [9])
    good = [row for row in range(9) if row not in {0, 1, 7}]
    assert torch.equal(sample(job, count=9)[0], sample(whole, count=9)[0][good])


def test_nothing_to_fit_to(tmp_path: Path) -> None:
    for name, counts in (("bad", [2]), ("empty", [0])):
        job = job_on(tmp_path / name, counts, bad=["0/0", "0/1"])
        with pytest.raises(DataError, match="has no image that can be decoded, so that no codec"):
            sample(job)


def test_a_stop_is_heeded_before_an_index_is_read(tmp_path: Path) -> None:
    """Of which there may be a hundred thousand."""
    job, stop = job_on(tmp_path, [5]), StopRequest()
    for shard in job.manifest.shards:
        Path(job.manifest.index_url_of(shard)).unlink()
    stop.signal_name = "SIGTERM"
    with pytest.raises(InterruptedRunError, match="nothing was written yet"):
        sample(job, stop=stop)
