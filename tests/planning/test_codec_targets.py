"""What codecs are measured on: other images than they are fitted to; Gaussian tokens as said."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from milan_pipeline.codecs.spectrum import spectrum_of
from milan_pipeline.errors import DataError
from milan_pipeline.planning.codec_targets import (
    power_law_tokens,
    stored_targets,
    synthetic_targets,
)
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.provenance.record import read_record
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.marks.columns import BriefMark
from milan_pipeline.targets.unit_list import units_of_extent
from milan_pipeline.targets.units import Unit, read_marks


def opened(store: Path) -> tuple[str, Identity, list[tuple[Unit, BriefMark]]]:
    url = str(store)
    record = read_record(f"{url}/extract-targets.json")
    assert record is not None
    marks = read_marks(url, 1)
    units = [(unit, marks[unit.mark_path]) for unit in units_of_extent(record["extent"], 1)]
    return url, read_identity(url), units


def test_a_small_store_is_split_in_halves(target_store: Path) -> None:
    found = stored_targets(*opened(target_store), samples=1024)
    assert found.measured_nND.shape == (12, 17, 24)
    assert found.fit_nND.shape == (12, 17, 24)
    assert found.notes == [
        "a view has 24 images, fewer than 8192: codecs are fitted to half of them"
    ]


def test_no_image_is_both_fitted_to_and_measured(target_store: Path) -> None:
    found = stored_targets(*opened(target_store), samples=5, fit_images=10)
    assert found.notes == []
    assert found.measured_nND.shape == (5, 17, 24)
    fitted = {row.numpy().tobytes() for row in found.fit_nND.flatten(0, 1)}
    measured = {row.numpy().tobytes() for row in found.measured_nND.flatten(0, 1)}
    assert (len(fitted), len(measured)) == (170, 85)
    assert fitted.isdisjoint(measured)


def test_one_image_is_too_few(target_store: Path) -> None:
    url, identity, units = opened(target_store)
    unit, mark = units[0]
    with pytest.raises(DataError, match="has 1 images in a view, and none is left"):
        stored_targets(url, identity, [(unit, msgspec.structs.replace(mark, n=1))], samples=8)


def test_a_store_that_is_lossy_says_so(target_store: Path) -> None:
    url, identity, units = opened(target_store)
    others = identity | {"transcoded_from": {"name": "int8"}}
    *_, note = stored_targets(url, others, units, samples=8).notes
    assert note == "the store is lossy itself (float16): figures are relative to what it holds"


@pytest.mark.parametrize("decay", [0.0, 1.0, 2.5])
def test_variances_fall_as_said(decay: float) -> None:
    tokens = power_law_tokens((40_000, 6), decay=decay, seed=3).numpy()
    variance = spectrum_of(tokens).variance_D
    assert variance == pytest.approx(np.arange(1, 7.0) ** -decay, rel=0.05)
    assert np.abs(tokens.mean(axis=0)).max() < 0.05


def test_components_are_those_of_every_seed_and_along_no_axis() -> None:
    one, other = (
        spectrum_of(power_law_tokens((20_000, 4), decay=3, seed=seed).numpy()).component_DD
        for seed in (1, 2)
    )
    assert np.abs((one * other).sum(axis=1)).min() > 0.99
    assert np.abs(one).max() < 0.99


def test_synthetic_targets_have_the_shape_of_the_others(target_store: Path) -> None:
    like = stored_targets(*opened(target_store), samples=7)
    found = synthetic_targets(like, 1.5)
    assert found.fit_nND.shape == like.fit_nND.shape
    assert found.measured_nND.shape == like.measured_nND.shape == (7, 17, 24)
    assert found.title == "synthetic: 7 of 17 x 24, Gaussian, variances k^-1.5"
    assert not torch.equal(found.fit_nND[0], found.measured_nND[0])
