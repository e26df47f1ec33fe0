"""Small worlds that the tests run in: a tiny CLIP, a folder of pictures, and the stages on them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from PIL import Image

from milan_pipeline.cli.main import main
from milan_pipeline.shards.manifest import Manifest, Shard, keys_of, load_index
from milan_pipeline.shards.sequential import read_rows
from milan_pipeline.storage import retries
from milan_pipeline.targets import shard_records
from tests.fake_slurm import FakeSlurm

TINY_VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
# Nothing here is large: teams of threads would wait for each other, beside threads of our own.
torch.set_num_threads(1)

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": TINY_VISION,
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that retries would have waited; no test does."""
    seconds: list[float] = []
    monkeypatch.setattr(retries, "_wait", seconds.append)
    return seconds


def run_cli(*words: object, code: int = 0) -> None:
    """Run a command in this process and check its exit code."""
    found: object = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        found = stop.code or 0
    assert found == code


def values_of(group: zarr.Group, name: str) -> NDArray[Any]:
    """Read a whole array of a unit."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])


def targets_of(manifest: Manifest, shard: Shard) -> list[tuple[str, bytes]]:
    """Read the key and the record's bytes of each sample of a target shard."""
    table = load_index(manifest, shard)
    read = read_rows([(manifest.url_of(shard), table)], threads=0)
    return [(key, data) for key, (_, _, data) in zip(keys_of(table), read, strict=True)]


def write_picture(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> None:
    """Write a small JPEG of smooth noise."""
    random = np.random.Generator(np.random.PCG64(seed))
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize(size, Image.Resampling.BICUBIC).save(path, quality=90)


def write_tiny_clip(folder: Path, seed: int = 0, image_size: int = 32) -> Path:
    """Write a randomly initialised open_clip model in `local-dir:` form."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    parts = {"vision_cfg": {**TINY_VISION, "image_size": image_size}}
    model = open_clip.model.CLIP(**(TINY_CLIP | parts))
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": TINY_CLIP | parts,
        "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Stand-ins for Slurm's commands, found first."""
    folder = tmp_path / "slurm-commands"
    folder.mkdir()
    monkeypatch.setenv("FAKE_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return FakeSlurm(folder)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny CLIP: 32 px, patch 8, a 4 x 4 grid, 24-dimensional targets."""
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-folder tree of 24 JPEGs in 3 classes."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(24):
        name = ("ant", "bee", "cat")[number % 3]
        write_picture(root / name / f"{number:03d}.jpg", number, (40 + number, 64 - number))
    return root


@pytest.fixture(scope="session")
def image_shards(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures packed into 3 image shards."""
    dest = tmp_path_factory.mktemp("shards")
    run_cli("pack-images", pictures, dest, "--samples-per-shard", 10)
    return dest


@pytest.fixture(scope="session")
def target_store(
    image_shards: Path, tiny_clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two views of the pictures' targets, as float16."""
    out = tmp_path_factory.mktemp("store") / "targets.zarr"
    teacher = f"local-dir:{tiny_clip}"
    run_cli(
        "extract-targets", "--images", image_shards, "--out", out, "--teacher", teacher,
        "--views", 2, "--batch-size", 4,
    )  # fmt: skip
    return out


@pytest.fixture(scope="session")
def target_shards(target_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The target store packed into 6 target shards, whose samples share members."""
    out = tmp_path_factory.mktemp("target-shards")
    run_cli("pack-targets", "--targets", target_store, "--out", out)
    return out


@pytest.fixture(scope="session")
def lone_target_shards(target_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a member a sample, as larger records have it, and as all once had."""
    out = tmp_path_factory.mktemp("lone-target-shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_records, "MOST_OVERHEAD", 1000)
        run_cli("pack-targets", "--targets", target_store, "--out", out)
    return out


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a Dask cluster: two workers that are threads of this process."""
    import dask
    from distributed import LocalCluster

    from milan_pipeline.cluster.dask_client import UNWATCHED

    with dask.config.set(UNWATCHED), LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address
