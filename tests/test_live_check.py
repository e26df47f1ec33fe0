"""Which targets are drawn, and what the comparison says of them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from milan_pipeline.codecs import make_codec, parse_codec
from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.live_check import Stored, compare, draw_sample, stored_targets
from milan_pipeline.manifest import Shard, load_manifest
from milan_pipeline.teacher import Teacher
from milan_pipeline.teacher_spec import TeacherSpec
from milan_pipeline.units import Mark, Unit, list_units, read_mark
from tests.conftest import run_cli


def unit_of(number: int, n: int) -> tuple[Unit, Mark]:
    shard = Shard(name=f"{number}.tar", samples=n, bytes=0, sha256="", index_sha256="")
    mark = Mark(shard=shard.name, sha256="", identity_hash="", view=0, n=n, skipped=[], objects={})
    return Unit(0, shard), mark


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(0, 40), st.integers(0, 5))
def test_a_sample_is_drawn_without_replacement(counts: list[int], count: int, seed: int) -> None:
    units = [unit_of(number, n) for number, n in enumerate(counts)]
    sample = draw_sample(units, count, seed)
    assert sum(len(rows) for _, _, rows in sample) == min(count, sum(counts))
    for unit, mark, rows in sample:
        assert (unit, mark) in units
        assert rows
        assert sorted(set(rows)) == rows
        assert 0 <= rows[0] <= rows[-1] < mark.n
    assert draw_sample(units, count, seed) == sample


@pytest.fixture(scope="module")
def store(image_shards: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of the pictures' targets in fp32."""
    out = tmp_path_factory.mktemp("live") / "targets.zarr"
    run_cli(
        "extract-targets", "--images", image_shards, "--out", out, "--teacher",
        f"local-dir:{tiny_clip}", "--views", 2, "--precision", "fp32",
    )  # fmt: skip
    return out


@pytest.fixture
def teacher(tiny_clip: Path) -> Teacher:
    return Teacher.load(TeacherSpec(name=f"local-dir:{tiny_clip}", precision="fp32"))


@pytest.fixture
def stored(store: Path, image_shards: Path) -> list[Stored]:
    images = load_manifest(str(image_shards), kind="images")
    unit = list_units(images, 2)[4]
    mark = read_mark(str(store), unit)
    assert mark is not None
    codec = make_codec("float16")
    return list(stored_targets(str(store), images, unit, mark, [1, 7], codec=codec, size=32))


def test_stored_and_live_targets_agree(stored: list[Stored], teacher: Teacher) -> None:
    for comparison, target in zip(compare(stored, teacher, None), stored, strict=True):
        assert comparison.key == target.key
        assert comparison.worst > 0.9999
        assert comparison.prior_error < 1e-6
        assert comparison.fidelity == pytest.approx(1)


def test_each_figure_sees_its_own(stored: list[Stored], teacher: Teacher) -> None:
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


def test_fidelity_is_of_the_precision_alone(stored: list[Stored], teacher: Teacher) -> None:
    spec = dataclasses.replace(teacher.spec, precision="bf16")
    strange = [target._replace(tokens_ND=torch.ones_like(target.tokens_ND)) for target in stored]
    for comparison in compare(strange, Teacher.load(spec), teacher):
        assert comparison.mean < 0.5
        assert 0.999 < comparison.fidelity < 1


def test_what_a_fitted_codec_loses_is_given_back(stored: list[Stored], teacher: Teacher) -> None:
    tokens_BND = torch.stack([target.tokens_ND for target in stored])
    codec = fit_codec(parse_codec("transform:bytes=2"), tokens_BND.flatten(0, 1))
    by_codec = codec.decode(*codec.encode(tokens_BND))
    coded = [
        target._replace(tokens_ND=tokens_ND)
        for target, tokens_ND in zip(stored, by_codec, strict=True)
    ]
    for comparison in compare(coded, teacher, None, codec):
        assert comparison.worst <= comparison.mean < 0.999
        assert comparison.cosine == pytest.approx(1, abs=1e-3)
    strange = [stored[0]._replace(tokens_ND=by_codec[0].flip(0)), stored[1]]
    first, second = compare(strange, teacher, None, codec)
    assert first.cosine < 0.99
    assert second.cosine > 1  # it was not coded, and so lost nothing
