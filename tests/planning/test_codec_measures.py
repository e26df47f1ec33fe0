"""What is measured of codecs, against numbers worked out by hand."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.codecs.spectrum import effective_rank
from milan_pipeline.planning.codec_measures import FileBytes, Measurement, bits_over_bound
from milan_pipeline.planning.codec_targets import TargetSet, power_law_tokens
from milan_pipeline.provenance.record import read_record
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.unit_list import units_of_extent
from milan_pipeline.targets.units import read_marks
from tests.support.cli import run_cli

CPU = torch.device("cpu")
WIDTH = 24


def files_of(store: Path) -> FileBytes:
    url = str(store)
    record = read_record(f"{url}/extract-targets.json")
    assert record is not None
    marks = read_marks(url, 1)
    units = [(unit, marks[unit.mark_path]) for unit in units_of_extent(record["extent"], 1)]
    return FileBytes(url, read_identity(url), units)


@pytest.fixture(scope="module")
def measurement(target_store: Path) -> Measurement:
    targets = TargetSet(
        name="synthetic",
        title="Gaussian",
        fit_nND=power_law_tokens((200, 17, WIDTH), decay=1, seed=1),
        measured_nND=power_law_tokens((70, 17, WIDTH), decay=1, seed=2),
    )
    return Measurement(targets, files_of(target_store), CPU)


class Turned(Codec):
    """Turns the first token by an angle in the plane of its first two components."""

    def __init__(self, angle: float) -> None:
        self.spec = make_codec("float16").spec
        self._turn = torch.eye(WIDTH)
        cos, sin = math.cos(angle), math.sin(angle)
        self._turn[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]])

    def parameters(self):
        return self.spec.parameters()

    def try_encode(self, tokens_nND):
        return make_codec("float16").try_encode(tokens_nND)

    def decode(self, codes_nNC, scale_nN):
        del scale_nN
        tokens = codes_nNC.float()
        tokens[:, 0] = tokens[:, 0] @ self._turn.T * 7
        return tokens


def test_cosines_are_of_directions(target_store: Path) -> None:
    flat = power_law_tokens((10, 4, WIDTH), decay=0, seed=0).half().float()
    flat[:, 0, 2:] = 0  # so that all of it turns
    targets = TargetSet(name="store", title="", fit_nND=flat, measured_nND=flat)
    found = Measurement(targets, files_of(target_store), CPU).of("float16", Turned(math.pi / 3))
    assert found.cls_cosine == pytest.approx(0.5, abs=1e-6)
    assert found.mean_cosine == pytest.approx((0.5 + 3) / 4, abs=1e-6)
    assert found.p01_cosine == pytest.approx(0.5, abs=1e-6)
    assert found.colour_agreement == 1  # of patches alone, which are as they were


def test_a_codec_that_loses_nothing(measurement: Measurement) -> None:
    exact = measurement.targets.measured_nND.half().float()
    targets = TargetSet(name="store", title="", fit_nND=exact, measured_nND=exact)
    found = Measurement(targets, measurement._files, CPU).of("float16", make_codec("float16"))
    assert found.mean_cosine == pytest.approx(1, abs=1e-14)
    assert found.colour_agreement == 1
    assert found.bits_over_bound is None
    assert (found.compression, found.files_compression, found.store_compression) == (1, 1, 1)
    assert (found.bytes_per_token, found.bytes_per_sample) == (48, 17 * 48)


def test_int8(measurement: Measurement) -> None:
    found = measurement.of("int8", make_codec("int8"))
    assert (found.codec, found.targets) == ("int8", "synthetic")
    assert (found.bytes_per_token, found.bytes_per_sample) == (26, 17 * 26)
    assert found.compression == 48 / 26
    assert 0.9998 < found.p01_cosine < found.mean_cosine < 1
    assert 0.99 < found.colour_agreement < 1
    assert found.bits_over_bound is not None
    assert found.encode_per_s > 0
    assert found.decode_per_s > 0


def test_fewer_bytes_lose_more(measurement: Measurement) -> None:
    found = [
        measurement.of(text, fit_codec(parse_codec(text), measurement.targets.fit_nND))
        for text in ("joint:bytes=12", "joint:bytes=6", "joint:bytes=3")
    ]
    names = ("mean_cosine", "p01_cosine", "cls_cosine", "rest_cosine", "colour_agreement")
    for name in names:
        values = [getattr(one, name) for one in found]
        assert values == sorted(values, reverse=True)
        assert len(set(values)) == 3
    assert [one.compression for one in found] == [4, 8, 16]
    for one in found:
        assert one.bits_over_bound is not None
        # Of 12, 6 or 3 bytes, one names a class, and Gaussian tokens have none.
        assert 0 < one.bits_over_bound < 1.25


def test_the_bound_is_met_by_an_ideal_code() -> None:
    """Four components of 0.16 and one of 0.01, coded to 0.01 each: 4 x log2(16) / 2 = 8 bits."""
    variance = np.array([0.16, 0.16, 0.16, 0.16, 0.01])
    cosine = math.sqrt(1 - 0.05)
    assert bits_over_bound(8, cosine, variance) == pytest.approx(0, abs=1e-6)
    assert bits_over_bound(10, cosine, variance) == pytest.approx(2 / 4, abs=1e-6)
    # At a fourth of that error there are two bits less in every one of five components.
    assert bits_over_bound(13, math.sqrt(1 - 0.05 / 4), variance) == pytest.approx(0, abs=1e-6)


def test_where_there_is_no_bound() -> None:
    variance = np.array([0.2, 0.1])
    assert bits_over_bound(16, 1.0, variance) is None
    assert bits_over_bound(16, math.sqrt(1 - 0.31), variance) is None  # the mean alone does it


@pytest.mark.parametrize(
    ("variance", "rank"), [([1, 1, 1, 1], 4), ([3, 0, 0], 1), ([0.5, 0.25, 0.25], 2**1.5)]
)
def test_effective_rank(variance: list[float], rank: float) -> None:
    assert effective_rank(np.array(variance, np.float64)) == pytest.approx(rank)


def size_of(folder: Path, *patterns: str) -> int:
    found = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    return sum(path.stat().st_size for path in found)


@pytest.mark.parametrize("views", [1, 2])
def test_files_are_as_written(target_store: Path, tmp_path: Path, views: int) -> None:
    run_cli("pack-targets", "--targets", target_store, "--out", tmp_path, "--views", views)
    files = dataclasses.replace(files_of(target_store), views=views)
    codec = make_codec("float16")
    # Without the stage's record and its report in progress/, which has the record's name.
    packed = size_of(tmp_path, "*") - size_of(tmp_path, "pack-targets.json")
    assert files.shards(codec) == packed
    names = [f"{folder}view-0{view}" for view in range(views) for folder in ("", "done/")]
    units = sum(size_of(target_store / name, "*") for name in names)
    assert files.store(codec) == units + (target_store / "zarr.json").stat().st_size


def test_a_fitted_codec_s_own_arrays_count(target_store: Path, measurement: Measurement) -> None:
    files = files_of(target_store)
    codec = fit_codec(parse_codec("joint:bytes=3"), measurement.targets.fit_nND)
    # The components of 64 kinds alone are more than what 24 images save.
    assert files.shards(codec) > files.shards(make_codec("float16"))
    assert files.store(codec) > 64 * 16 * WIDTH * 2
