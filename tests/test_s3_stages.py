"""Every stage on an S3 server that goes away in its midst: the same bytes as on a local disk."""

import hashlib
from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.manifest import load_manifest
from milan_pipeline.units import read_marks
from tests.conftest import run_cli
from tests.s3_server import BUCKET, Outage, outage, s3_server
from tests.stages.small_pretrain import TINY_STUDENT, weights

__all__ = ["outage", "s3_server"]  # fixtures

# fsspec leaves its clients' sessions to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

STORE = f"{BUCKET}/targets.zarr"
TRAINING = (*TINY_STUDENT, "--batch-size", 8, "--epochs", 8, "--max-steps", 20)


def images_of(folder: object) -> list[str]:
    return [shard.sha256 for shard in load_manifest(str(folder), kind="images").shards]


def tars_of(folder: object) -> list[tuple[str, str]]:
    """Name and SHA-256 of the tars that lie there."""
    manifest = load_manifest(str(folder), kind="targets")
    found = [
        (shard.name, hashlib.sha256(storage.read_bytes(manifest.url_of(shard))).hexdigest())
        for shard in manifest.shards
    ]
    assert [sha256 for _, sha256 in found] == [shard.sha256 for shard in manifest.shards]
    return found


def objects_of(store: object) -> dict[str, bytes]:
    """The bytes of every object of every unit, and of the marks that list them."""
    paths = ["zarr.json"]
    for mark_path, mark in read_marks(str(store), 2).items():
        unit = mark_path.removeprefix("done/").removesuffix(".json")
        paths += [mark_path, *(f"{unit}/{path}" for path in mark.objects)]
    return {path: storage.read_bytes(storage.join(str(store), path)) for path in paths}


@pytest.fixture
def through(outage: Outage):
    """Run a stage while the server goes away after so many actions, and check that it did."""

    def run(*words: object, after: int) -> None:
        outage.plan(after=after)
        run_cli(*words)
        print(words[0], outage.actions, outage.refused)
        assert outage.actions > after, f"{words[0]} ended before the outage"
        assert outage.refused > 0

    return run


def test_stages_outlast_an_outage_with_the_same_bytes(
    through, pictures: Path, image_shards: Path, tiny_clip: Path, target_store: Path,
    target_shards: Path, tmp_path: Path,
) -> None:  # fmt: skip
    images, targets = f"{BUCKET}/images", f"{BUCKET}/targets"
    through("pack-images", pictures, images, "--samples-per-shard", 10, after=4)
    assert images_of(images) == images_of(image_shards)
    through(
        "extract-targets", "--images", images, "--out", STORE, "--teacher",
        f"local-dir:{tiny_clip}", "--views", 2, "--batch-size", 4, after=40,
    )  # fmt: skip
    assert objects_of(STORE) == objects_of(target_store)
    through("pack-targets", "--targets", STORE, "--out", targets, after=30)
    assert tars_of(targets) == tars_of(target_shards)
    through(
        "pretrain", "--images", images, "--targets", targets, "--out", tmp_path / "run",
        *TRAINING, "--workers", 0, after=60,
    )  # fmt: skip
    run_cli(
        "pretrain", "--images", image_shards, "--targets", target_shards, "--out",
        tmp_path / "local", *TRAINING, "--workers", 0,
    )  # fmt: skip
    assert weights(tmp_path / "run") == weights(tmp_path / "local")
