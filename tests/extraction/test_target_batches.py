"""Batches through a teacher: padded or not, the same rows; a verdict that travels with them."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.interface import Codec, encode_prior
from milan_pipeline.codecs.registry import PLAIN, parse_codec
from milan_pipeline.core.device_copies import DeviceCopies
from milan_pipeline.errors import DataError
from milan_pipeline.extraction.job import ExtractionJob
from milan_pipeline.extraction.target_batches import compute
from milan_pipeline.extraction.view_batches import PixelBuffers, ViewBatch, view_batches
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.targets.units import read_marks
from tests.support.extraction import WIDTH, RowTeacher, extract, job_on
from tests.support.stores import files_of

FITTED = ("joint:bytes=2",)
BAD = ["0/0", "0/5", "0/6", "0/7", "0/8", "1/2"]


def variant(
    job: ExtractionJob, folder: Path, **changes: object
) -> tuple[ExtractionJob, RowTeacher]:
    teacher = RowTeacher()
    values = {"teacher": teacher, "store": str(folder / "targets.zarr"), **changes}
    return dataclasses.replace(job, **values), teacher  # type: ignore[arg-type]


@functools.cache
def codec_of(text: str) -> Codec:
    if text in PLAIN:
        return make_codec(text)
    tokens_nND = torch.randn(60, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    return fit_codec(parse_codec(text), tokens_nND)


@pytest.mark.parametrize("codec", [*PLAIN, *FITTED])
@pytest.mark.parametrize("bad", [[], BAD])
def test_padding_changes_no_byte(tmp_path: Path, bad: list[str], codec: str) -> None:
    job = job_on(tmp_path, [13, 3, 1, 4], bad=bad, codec=codec_of(codec))
    units = list_units(job.manifest, 2)
    plain, teacher = variant(job, tmp_path / "plain", padded=False)
    marks = extract(plain, units)
    padded, padding_teacher = variant(job, tmp_path / "padded", padded=True)
    assert extract(padded, units) == marks
    assert files_of(tmp_path / "padded") == files_of(tmp_path / "plain")
    assert sum(teacher.batches) == sum(mark.n for mark in marks)
    batches_of_view = [4, 4, 4, 4, 3, 1, 4]
    if not bad:
        assert padding_teacher.batches == batches_of_view * 2
        assert teacher.batches == [4, 4, 4, 1, 3, 1, 4] * 2
    assert set(padding_teacher.batches) <= set(batches_of_view)


@pytest.mark.parametrize("text", ["float16", *FITTED])
def test_priors_are_encoded_where_the_codec_has_codes_of_them(tmp_path: Path, text: str) -> None:
    codec = codec_of(text)
    job, teacher = variant(job_on(tmp_path, [5], codec=codec), tmp_path)
    units = list_units(job.manifest, 1)
    copies, buffers = DeviceCopies(teacher.device), PixelBuffers.of(job, units)
    for views in view_batches(job, units, buffers):
        assert isinstance(views, ViewBatch)
        _, prior_RL = teacher(views.buffer_BCSS[: len(views.keys)])
        wanted = encode_prior(prior_RL) if codec.spec.needs_fit else prior_RL
        written = compute(job, views, views.good_rows(), copies).to_block(buffers).prior
        assert written.dtype == codec.spec.prior_dtype
        assert np.array_equal(written, wanted.numpy())
        assert len(np.unique(written)) > 2


def test_on_the_cpu_nothing_is_padded(tmp_path: Path) -> None:
    job, teacher = variant(job_on(tmp_path, [7], batch_size=6), tmp_path)
    extract(job, list_units(job.manifest, 1))
    assert not job.pads
    assert teacher.batches == [4, 3]


def test_whole_batches_have_all_rows_everywhere(tmp_path: Path) -> None:
    job = job_on(tmp_path, [9, 0, 1, 4], bad=["0/1", "2/0"])
    units = list_units(job.manifest, 1)
    plain, _ = variant(job, tmp_path / "plain")
    whole, teacher = variant(job, tmp_path / "whole", whole=True)
    assert extract(whole, units) == extract(plain, units)
    assert files_of(tmp_path / "whole") == files_of(tmp_path / "plain")
    assert teacher.batches == [4] * 4  # of the third unit nothing can be read


def test_off_the_cpu_all_is_padded(tmp_path: Path) -> None:
    job = job_on(tmp_path, [1])
    teacher = RowTeacher()
    teacher.device = torch.device("cuda")
    assert dataclasses.replace(job, teacher=teacher).pads


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_features_that_cannot_be_stored_stop_it_by_name(
    tmp_path: Path, value: float, padded: bool
) -> None:
    job, teacher = variant(job_on(tmp_path, [4, 6], bad=["1/0"]), tmp_path, padded=padded)
    teacher.poison = {2: value}  # the second unit's second batch
    message = r"not finite or too large for the codec, for one, of s001\.tar:k003; use --precision"
    with pytest.raises(DataError, match=message):
        extract(job, list_units(job.manifest, 1))
    assert list(read_marks(job.store, 1)) == ["done/view-00/s000.json"]


def test_features_that_are_all_zero_stop_it(tmp_path: Path) -> None:
    job, teacher = variant(job_on(tmp_path, [4]), tmp_path)
    teacher.poison = {0: 100.0}  # which the teacher takes off
    with pytest.raises(DataError, match=r"features that are all zero.* s000\.tar:k000"):
        extract(job, list_units(job.manifest, 1))


def test_what_padding_rows_hold_is_nobody_s_fault(tmp_path: Path) -> None:
    job, teacher = variant(job_on(tmp_path, [3], bad=["0/0"]), tmp_path, padded=True)
    teacher.poison = {0: float("nan")}  # in the row of an unreadable image
    assert [mark.n for mark in extract(job, list_units(job.manifest, 1))] == [2]
