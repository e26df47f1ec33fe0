"""`benchmarks.extract`: the plain extractor's outputs are ours, and the whole of it runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from benchmarks.extract_data import ReadyMade, extract, load_photos, make_photos
from benchmarks.extract_rivals import plain_extract
from tests.support.stores import values_of


def test_the_plain_extractor_stores_what_ours_does(tmp_path: Path) -> None:
    make_photos(tmp_path, 3, 1)
    photos = load_photos(tmp_path)
    assert extract(photos.manifest, ReadyMade(), tmp_path / "ours", 1) == 3
    assert plain_extract(photos.folder, ReadyMade(), tmp_path / "plain") == 3
    ours = zarr.open_group(tmp_path / "ours" / "view-00" / "train-000000", mode="r")
    plain = zarr.open_group(tmp_path / "plain", mode="r")
    assert sorted(ours.array_keys()) == sorted(plain.array_keys())
    for name in ours.array_keys():
        assert values_of(ours, name).dtype == values_of(plain, name).dtype
        if name not in ("box", "flip"):  # which it draws from torch's state
            assert np.array_equal(values_of(ours, name), values_of(plain, name))


@pytest.mark.slow
def test_it_ends_in_one_line_of_json() -> None:
    words = ["--images", "100", "--computed", "2", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.extract", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    last = json.loads(done.stdout.splitlines()[-1])
    assert {"cpu_over_floor", "feed_share", "feed_vs_plain", "peak_mb"} == set(last)
    assert last["feed_share"] > 0
