"""Targets beside those that they were made of: the same rows, true figures, others refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from milan_pipeline.errors import ConfigError, MismatchError
from milan_pipeline.report.fidelity import measured_facts, read_originals
from milan_pipeline.report.inspection import inspect_places
from milan_pipeline.report.pages import page_of
from milan_pipeline.report.target_rows import read_target_rows
from tests.support.cli import run_cli
from tests.support.pages import require_self_contained
from tests.support.stores import make_store

CODEC = "joint:bytes=3"


@pytest.fixture(scope="module")
def coarse(target_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The targets by a lossy codec, as a store and as shards."""
    folder = tmp_path_factory.mktemp("coarse")
    run_cli("transcode", target_store, folder / "store.zarr", "--codec", CODEC)
    run_cli("pack-targets", "--targets", target_store, "--out", folder / "shards", "--codec", CODEC)
    return {"store": folder / "store.zarr", "shards": folder / "shards"}


@pytest.mark.parametrize("kind", ["store", "shards"])
def test_rows_are_those_that_they_were_made_of(
    kind: str, coarse: dict[str, Path], target_store: Path
) -> None:
    rows = read_target_rows(str(coarse[kind]), 20, 3)
    codec, originals_nND = read_originals(str(target_store), rows)
    whole = read_target_rows(str(target_store), 48, 0)
    names = list(zip(whole.source, whole.key, whole.view, strict=True))
    order = [names.index(name) for name in zip(rows.source, rows.key, rows.view, strict=True)]
    assert codec == "float16"
    assert torch.equal(originals_nND, whole.tokens_nND[order])


def test_figures_are_of_the_cosines() -> None:
    tokens_nND = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]])
    originals_nND = torch.tensor([[[0.0, 3.0], [1.0, 1.0], [0.0, 1.0]]])
    facts = measured_facts(tokens_nND, "int8", originals_nND)
    assert facts == {
        "codec_of_the_originals": "int8",
        "mean_cosine_to_the_originals": pytest.approx(2 / 3),
        "first_percentile": pytest.approx(0.02),
        "mean_of_class_tokens": pytest.approx(0),
        "mean_without_the_largest_channel": pytest.approx(1 / 3),
        "its_first_percentile": pytest.approx(0),
    }


def test_the_page_has_them(coarse: dict[str, Path], target_store: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run_cli("inspect", coarse["shards"], "--html", page, "--originals", target_store)
    with_them = page.read_text()
    run_cli("inspect", coarse["shards"], "--html", page)
    without = page.read_text()
    for text in (with_them, without):
        require_self_contained(text)
    assert "codec of the originals" in with_them
    assert "mean cosine to the originals" in with_them
    assert "not known: --originals measures it" in without


def test_other_targets_are_refused(
    coarse: dict[str, Path], target_store: Path, tmp_path: Path
) -> None:
    rows = read_target_rows(str(coarse["store"]), 20, 0)
    made = make_store(tmp_path, images=4, side=2)
    with pytest.raises(MismatchError, match=r"teacher\.name is 'made-up' there .* made of"):
        read_originals(made.store, rows)
    rows.records["digest"][7] += np.uint64(1)
    with pytest.raises(MismatchError, match=f"no target of the pixels that {rows.key[7]} of"):
        read_originals(str(target_store), rows)
    rows.source[7] = "images-999999"
    with pytest.raises(MismatchError, match=r"has no finished view \d of images-999999"):
        read_originals(str(target_store), rows)


def test_it_is_for_targets_alone(image_shards: Path, target_store: Path) -> None:
    found = inspect_places([str(image_shards)])
    with pytest.raises(ConfigError, match="is for targets, not image shards"):
        page_of(
            found, images=None, targets=None, originals=str(target_store), gallery=1, seed=0
        )  # fmt: skip
