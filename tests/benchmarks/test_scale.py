"""`benchmarks.scale` runs: each row of it, tiny."""

import json
import subprocess
import sys

import pytest

from benchmarks.scale import NO_WORLD
from benchmarks.scale_rows import ROWS, Sizes
from benchmarks.scale_world import write_world

SHARDS = 20


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Sizes:
    root = tmp_path_factory.mktemp("scale")
    write_world(root, SHARDS)
    return Sizes(root, SHARDS, files=50, units=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROWS.keys() - {"transcode_high"}))  # which takes minutes
def test_a_row(sizes: Sizes, name: str) -> None:
    with ROWS[name](sizes) as (function, bucket):
        function()
        assert (bucket is None) == (name in NO_WORLD)
        if bucket is not None:
            assert bucket.requests.gets
            assert not bucket.requests.puts  # all is done


@pytest.mark.slow
def test_it_ends_in_one_line_of_json() -> None:
    words = ["--shards", "20", "--only", "epoch_order"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", *words],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    last = json.loads(done.stdout.splitlines()[-1])
    names = {"extract_resume_s", "finetune_start_s", "pack_images_mb_per_million"}
    names |= {"pretrain_start_s", "pretrain_start_mb", "transcode_high_peak_mb"}
    assert last == dict.fromkeys(names)
