"""Every stage on an S3 server that fails now and then: the same bytes as on a local disk."""

import fsspec
import pytest

from tests.faults.campaign import COUNTS, chance
from tests.faults.flapping import WAYS, flapping
from tests.support.cli import run_cli
from tests.support.pretrain import TINY_STUDENT, weights
from tests.support.servers import BUCKET, images_of, objects_of, s3_server, tars_of

__all__ = ["s3_server"]  # a fixture

# fsspec leaves its clients' sessions to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

READ_SECONDS = 5
"""After so long without an answer, a request is made again."""
IMAGES, STORE, TARGETS = (f"{BUCKET}/{name}" for name in ("images", "targets.zarr", "targets"))
TRAINING = (*TINY_STUDENT, "--batch-size", 8, "--epochs", 8, "--max-steps", 20, "--workers", 0)


@pytest.fixture
def proxy(s3_server, monkeypatch):
    """What stands before the server."""
    s3fs = pytest.importorskip("s3fs")
    with flapping(s3_server.url, chance("flapping")) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        monkeypatch.setitem(
            fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": READ_SECONDS}}
        )
        s3fs.S3FileSystem.clear_instance_cache()
        yield found


@pytest.fixture
def on_s3(proxy):
    """Run a stage and count the requests that were spoilt meanwhile."""

    def run(*words, found, right) -> None:
        before = proxy.spoilt.total()
        run_cli(*words)
        count = COUNTS[f"spoilt request, {words[0]}"]
        spoilt = proxy.spoilt.total() - before
        count.tried += spoilt
        if found() == right:
            count.harmless += spoilt
        else:
            count.fail(str(words[0]), "other bytes", silent=True)
        count.require_none_failed()
        assert spoilt

    return run


def test_stages_outlast_a_flapping_store(
    *, on_s3, proxy, pictures, image_shards, tiny_clip, target_store, target_shards, tmp_path
) -> None:
    """As `end_to_end/test_s3_stages.py` has them outlast one that is away."""
    on_s3(
        "pack-images", pictures, IMAGES, "--samples-per-shard", 10,
        found=lambda: images_of(IMAGES), right=images_of(image_shards),
    )  # fmt: skip
    on_s3(
        "extract-targets", "--images", IMAGES, "--out", STORE, "--teacher",
        f"local-dir:{tiny_clip}", "--views", 2, "--batch-size", 4,
        found=lambda: objects_of(STORE), right=objects_of(target_store),
    )  # fmt: skip
    on_s3(
        "pack-targets", "--targets", STORE, "--out", TARGETS,
        found=lambda: tars_of(TARGETS), right=tars_of(target_shards),
    )  # fmt: skip
    local, remote = tmp_path / "local", tmp_path / "remote"
    run_cli(
        "pretrain", "--images", image_shards, "--targets", target_shards, "--out", local, *TRAINING
    )
    on_s3(
        "pretrain", "--images", IMAGES, "--targets", TARGETS, "--out", remote, *TRAINING,
        found=lambda: weights(remote), right=weights(local),
    )  # fmt: skip
    assert proxy.spoilt.keys() >= set(WAYS) - {"stalled"}
