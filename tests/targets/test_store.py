"""A target store from Python: its units, decoded; what is not finished or not whole is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from milan_pipeline.errors import DataError, MissingDataError
from milan_pipeline.targets.store import open_targets
from tests.support.cli import run_cli
from tests.support.stores import values_of

UNIT = (1, "images-000002")


@pytest.fixture
def copied(target_store: Path, tmp_path: Path) -> Path:
    return shutil.copytree(target_store, tmp_path / "targets.zarr")


def test_units_are_read_whole_and_in_part(target_store: Path) -> None:
    store = open_targets(str(target_store))
    stems = [f"images-00000{number}" for number in range(3)]
    assert store.units == [(view, stem) for view in range(2) for stem in stems]
    assert store.identity["teacher"]["width"] == 24
    whole, part = store.read(*UNIT), store.read(*UNIT, rows=slice(1, 3))
    group = zarr.open_group(target_store / "view-01/images-000002", mode="r")
    assert whole.keys == values_of(group, "key").tolist()
    assert np.array_equal(whole.tokens_nND, values_of(group, "codes").astype(np.float32))
    assert np.array_equal(whole.box, values_of(group, "box"))
    assert part.keys == whole.keys[1:3]
    for rows, every in zip(part[1:], whole[1:], strict=True):
        assert np.array_equal(rows, every[1:3])


def test_fitted_codecs_are_decoded(target_store: Path, tmp_path: Path) -> None:
    run_cli("transcode", target_store, tmp_path / "small.zarr", "--codec", "joint:bytes=12")
    small, full = open_targets(str(tmp_path / "small.zarr")), open_targets(str(target_store))
    ours, theirs = small.read(*UNIT), full.read(*UNIT)
    lengths = np.linalg.norm(ours.tokens_nND, axis=-1) * np.linalg.norm(theirs.tokens_nND, axis=-1)
    assert ((ours.tokens_nND * theirs.tokens_nND).sum(-1) / lengths).mean() > 0.9
    assert (ours.prior_nL > 0).all()


def test_a_unit_without_a_mark_or_with_a_revoked_one_does_not_exist(copied: Path) -> None:
    (copied / "done/view-01/images-000002.json").unlink()
    mark = copied / "done/view-00/images-000000.json"
    mark.write_text(mark.read_text().replace('"identity_hash": "', '"identity_hash": "0'))
    store = open_targets(str(copied))
    assert len(store.units) == 4
    with pytest.raises(MissingDataError, match="no finished unit of view 1 of images-000002"):
        store.read(*UNIT)


def test_views_without_a_finished_unit_hide_no_later_ones(copied: Path) -> None:
    shutil.rmtree(copied / "done/view-00")
    assert [view for view, _ in open_targets(str(copied)).units] == [1, 1, 1]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_a_missing_or_damaged_chunk_is_an_error(copied: Path, harm) -> None:
    harm(copied / "view-01/images-000002/codes/c/0/0/0")
    with pytest.raises(DataError, match=r"codes/c/0/0/0 is (missing|damaged)"):
        open_targets(str(copied)).read(*UNIT)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="holds no target store"):
        open_targets(str(tmp_path))
