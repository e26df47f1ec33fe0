"""Small worlds that the tests run in: a tiny CLIP, a folder of pictures, and the stages on them."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_limits

from milan_pipeline.storage import retries
from tests.support.cli import run_cli
from tests.support.clip import write_tiny_clip
from tests.support.pictures import write_picture
from tests.support.servers import FakeSlurm
from tests.support.stores import write_alone

# Nothing here is large, several tests run side by side, and the last bits of what they compare must
# not depend on the machine: one thread each, here and in the commands that they start.
torch.set_num_threads(1)
threadpool_limits(limits=1)  # of the BLAS of numpy
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_finish() -> None:
    """Spare the search for cycles the million objects of what was imported."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Undo that, since Hypothesis asks at the end what refers to what."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that retries would have waited; no test does."""
    seconds: list[float] = []
    monkeypatch.setattr(retries, "_wait", seconds.append)
    return seconds


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what else the machine does."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))


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
def lone_target_shards(target_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a member a sample, as larger records have it."""
    out = tmp_path_factory.mktemp("lone-target-shards")
    write_alone(target_shards, out)
    return out


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a Dask cluster: two workers that are threads of this process."""
    import dask
    from distributed import LocalCluster

    from milan_pipeline.cluster.dask_client import NO_PROFILER

    with dask.config.set(NO_PROFILER), LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address
