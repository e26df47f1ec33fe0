"""Which targets are drawn, and what the comparison says of them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.interface import Codec, decode_prior, encode_prior
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.extraction.live_check import (
    StoredTarget,
    compare,
    draw_sample,
    likeness,
    targets_with_pixels,
)
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.unit_list import list_units
from milan_pipeline.targets.units import read_mark
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.cli import extract_targets
from tests.support.fitted import FITTED, fitted, sample


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 40), st.integers(0, 5))
def test_a_sample_is_drawn_without_replacement(counts: list[int], count: int, seed: int) -> None:
    targets_u = np.array(counts, np.int64)
    sample = draw_sample(targets_u, count, seed)
    assert sum(map(len, sample.values())) == min(count, sum(counts))
    assert list(sample) == sorted(sample)
    for unit, rows in sample.items():
        assert rows
        assert sorted(set(rows)) == rows
        assert 0 <= rows[0] <= rows[-1] < counts[unit]
    assert draw_sample(targets_u, count, seed) == sample


def test_the_same_targets_are_drawn_as_ever() -> None:
    recorded = {
        0: [0, 2],
        2: [3, 6, 10, 20, 21, 22, 28, 31, 32, 35, 36, 38, 39, 40, 42, 47],
        3: [0, 1],
    }
    assert draw_sample(np.array([3, 0, 50, 2], np.int64), 20, 7) == recorded


@pytest.fixture(scope="module")
def store(image_shards: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of the pictures' targets in fp32."""
    out = tmp_path_factory.mktemp("live") / "targets.zarr"
    extract_targets(image_shards, tiny_clip, out, "--views", 2, "--precision", "fp32")
    return out


@pytest.fixture
def teacher(tiny_clip: Path) -> Teacher:
    return Teacher.load(TeacherSpec(name=f"local-dir:{tiny_clip}", precision="fp32"))


@pytest.fixture
def stored(store: Path, image_shards: Path) -> list[StoredTarget]:
    images = load_manifest(str(image_shards), kind="images")
    unit = list_units(images, 2)[4]
    mark = read_mark(str(store), unit)
    assert mark is not None
    codec = make_codec("float16")
    return list(targets_with_pixels(str(store), images, unit, mark, [1, 7], codec=codec, size=32))


def test_stored_and_live_targets_agree(stored: list[StoredTarget], teacher: Teacher) -> None:
    for comparison, target in zip(compare(stored, teacher, None), stored, strict=True):
        assert comparison.key == target.key
        assert comparison.worst > 0.9999
        assert comparison.prior_error < 1e-6
        assert comparison.fidelity == pytest.approx(1)


def test_each_figure_sees_its_own(stored: list[StoredTarget], teacher: Teacher) -> None:
    tokens = stored[0].tokens_ND.clone()
    tokens[0] *= -2
    prior = stored[0].prior_L.clone()
    prior[3] += 0.25
    wrong = [stored[0]._replace(tokens_ND=tokens, prior_L=prior), stored[1]]
    first, second = compare(wrong, teacher, None)
    assert first.cls == first.worst == pytest.approx(-1, abs=1e-3)
    assert first.mean == pytest.approx(1 - 2 / 17, abs=1e-3)
    assert first.prior_error == pytest.approx(0.25, abs=1e-5)
    assert second.worst > 0.9999


def test_fidelity_is_of_the_precision_alone(stored: list[StoredTarget], teacher: Teacher) -> None:
    spec = dataclasses.replace(teacher.spec, precision="bf16")
    strange = [target._replace(tokens_ND=torch.ones_like(target.tokens_ND)) for target in stored]
    for comparison in compare(strange, Teacher.load(spec), teacher):
        assert comparison.mean < 0.5
        assert 0.999 < comparison.fidelity < 1


@pytest.mark.parametrize("text", FITTED)
def test_a_fitted_codec_s_own_error_is_taken_off(text: str) -> None:
    codec = fitted(text)
    live_BND = sample(200, seed=5)
    seen_BND = live_BND * (1 + 0.003 * torch.randn(live_BND.shape, generator=torch.manual_seed(0)))
    stored_BND = codec.decode(*codec.encode(seen_BND))
    changed_BN = (stored_BND != codec.decode(*codec.encode(live_BND))).any(dim=-1)
    assert changed_BN.any()
    likeness_BN = likeness(stored_BND, live_BND, codec)
    assert 0.99 < float(likeness_BN.min()) <= float(likeness_BN.max()) == 1
    plain_BN = F.cosine_similarity(stored_BND, live_BND, dim=-1)
    assert (plain_BN < likeness_BN + 1e-6).all()
    assert plain_BN.mean() < likeness_BN.mean() - 1e-4
    # Another image's tokens are farther than any error of the codec.
    assert likeness(stored_BND.roll(1, 0), live_BND, codec).amin(dim=1).max() < 0.9


def test_of_a_plain_codec_nothing_is_taken_off() -> None:
    live_BND = sample(3)
    stored_BND = live_BND + 0.5
    wanted = F.cosine_similarity(stored_BND, live_BND, dim=-1)
    assert torch.equal(likeness(stored_BND, live_BND, make_codec("int8")), wanted)


def test_what_is_no_number_is_like_nothing() -> None:
    live_BND = sample(3)
    for codec in (make_codec("int8"), fitted("joint:bytes=2")):
        assert likeness(live_BND * torch.nan, live_BND, codec).isnan().all()


def test_a_coded_prior_is_right_within_its_step(
    stored: list[StoredTarget], teacher: Teacher
) -> None:
    prior_L = stored[0].prior_L
    coded_L = torch.from_numpy(decode_prior(encode_prior(prior_L).numpy()))
    target = stored[0]._replace(prior_L=coded_L, codec=coded(stored[0]))
    assert (coded_L - prior_L).abs().max() > 1e-4
    (found,) = compare([target], teacher, None)
    assert found.prior_error < 1e-6
    (found,) = compare([target._replace(prior_L=coded_L * 1.5)], teacher, None)
    assert found.prior_error > 0.2 * float(coded_L.max())


def coded(target: StoredTarget) -> Codec:
    return fit_codec(parse_codec("joint:bytes=2"), target.tokens_ND[None])
