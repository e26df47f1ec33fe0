"""Every stage on an S3 server that goes away in its midst: the same bytes as on a local disk."""

import re
from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import load_manifest
from tests.support.cli import extract_targets, run_cli
from tests.support.pretrain import TINY_STUDENT, weights
from tests.support.servers import BUCKET, Outage, S3Server, images_of, objects_of, tars_of

# fsspec leaves its clients' sessions to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
STORE = f"{BUCKET}/targets.zarr"
TRAINING = (*TINY_STUDENT, "--batch-size", 8, "--epochs", 8, "--max-steps", 20)


@pytest.fixture
def through(outage: Outage):
    """Run a stage while the server goes away after so many actions, and check that it did."""

    def run(*words: object, after: int) -> None:
        outage.plan(after=after)
        run_cli(*words)
        assert outage.actions > after, f"{words[0]} ended before the outage"
        assert outage.refused > 0

    return run


@pytest.mark.slow
def test_stages_outlast_an_outage_with_the_same_bytes(
    *, through, pictures: Path, image_shards: Path, tiny_clip: Path, target_store: Path,
    target_shards: Path, tmp_path: Path,
) -> None:  # fmt: skip
    images, targets = f"{BUCKET}/images", f"{BUCKET}/targets"
    through("pack-images", pictures, images, "--samples-per-shard", 10, after=6)
    assert images_of(images) == images_of(image_shards)
    through(
        "extract-targets", "--images", images, "--out", STORE, "--teacher",
        f"local-dir:{tiny_clip}", "--views", 2, "--batch-size", 4, after=60,
    )  # fmt: skip
    assert objects_of(STORE) == objects_of(target_store)
    through("pack-targets", "--targets", STORE, "--out", targets, after=50)
    assert tars_of(targets) == tars_of(target_shards)
    through(
        "pretrain", "--images", images, "--targets", targets, "--out", tmp_path / "run",
        *TRAINING, "--workers", 0, after=160,
    )  # fmt: skip
    run_cli(
        "pretrain", "--images", image_shards, "--targets", target_shards, "--out",
        tmp_path / "local", *TRAINING, "--workers", 0,
    )  # fmt: skip
    assert weights(tmp_path / "run") == weights(tmp_path / "local")


def upload(folder: Path, url: str) -> str:
    """Copy a folder to the server."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        storage.put_bytes(storage.join(url, str(path.relative_to(folder))), path.read_bytes())
    return url


@pytest.mark.slow
def test_dry_runs_say_of_a_server_what_they_say_of_a_disk(
    *, s3_server: S3Server, image_shards: Path, tiny_clip: Path, target_store: Path,
    target_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    remote = (upload(image_shards, f"{BUCKET}/images"), upload(target_store, STORE))
    packed = upload(target_shards, f"{BUCKET}/targets")

    def said(images: object, store: object, targets: object) -> str:
        capsys.readouterr()
        extract_targets(images, tiny_clip, store, "--views", 3, "--dry-run")
        run_cli("pack-targets", "--targets", store, "--out", targets, "--dry-run")
        run_cli(
            "pretrain", "--images", images, "--targets", targets, "--out", tmp_path / "run",
            *TRAINING, "--dry-run",
        )  # fmt: skip
        # Free bytes differ, and a record holds the URLs that it was given.
        return re.sub(r"free: .+|about .+;", "", capsys.readouterr().out)

    before = set(storage.list_names(BUCKET))
    assert said(*remote, packed) == said(image_shards, target_store, target_shards)
    assert set(storage.list_names(BUCKET)) == before
    assert not (tmp_path / "run").exists()


def test_tars_on_a_server_are_indexed_there(
    outage: Outage, image_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tars = f"{BUCKET}/tars"
    for path in image_shards.glob("*.tar"):
        storage.put_bytes(f"{tars}/{path.name}", path.read_bytes())
    words = ("index", f"{tars}/images-{{000000..000002}}.tar", "--workers", 0)
    outage.plan(after=7)
    run_cli(*words)
    assert outage.refused > 0
    local, remote = (load_manifest(str(at), kind="images") for at in (image_shards, tars))
    assert images_of(tars) == images_of(image_shards)
    for one, other in zip(local.shards, remote.shards, strict=True):
        assert (load_index(local, one) == load_index(remote, other)).all()
    capsys.readouterr()
    run_cli(*words, "--dry-run")
    assert "shards to index: 0, listed: 3" in capsys.readouterr().out


@pytest.mark.slow
def test_loader_processes_read_from_a_server(
    s3_server: S3Server, image_shards: Path, target_shards: Path, tmp_path: Path
) -> None:
    remote = (upload(image_shards, f"{BUCKET}/images"), upload(target_shards, f"{BUCKET}/targets"))
    for name, (images, targets), workers in (
        ("remote", remote, 1),
        ("local", (image_shards, target_shards), 0),
    ):
        run_cli(
            "pretrain", "--images", images, "--targets", targets, "--out", tmp_path / name,
            *TRAINING, "--max-steps", 4, "--workers", workers,
        )  # fmt: skip
    assert weights(tmp_path / "remote") == weights(tmp_path / "local")
