"""A /dev/shm that is too small for a batch ends training in a sentence; nothing waits for ever."""

import shutil
import subprocess
import sys

import pytest

from tests.faults.campaign import COUNTS
from tests.faults.victims import PATIENCE
from tests.support.pretrain import TINY_STUDENT

KIND = "no room in shared memory"
SHARED = "dev/shm"
SMALL = 'mount -t tmpfs -o size="$0" tmpfs /dev/shm && exec "$@"'
ISOLATED = ("unshare", "--mount", "--map-root-user", "sh", "-c", SMALL)


def may_mount() -> bool:
    """Whether this machine lets us have a /dev/shm of our own."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*ISOLATED, "64k", "true"], check=False, capture_output=True).returncode == 0
    )


@pytest.fixture(scope="module", autouse=True)
def _mounts() -> None:
    if not may_mount():
        pytest.skip("the system lets no one mount a file system")


@pytest.mark.parametrize("size", ["8k", "64k", "128k"])
def test_a_full_one_ends_training(image_shards, tmp_path, size):
    command = [
        sys.executable, "-m", "milan_pipeline", "pretrain", "--target", "pixels", "--images",
        image_shards, "--out", tmp_path / "run", *TINY_STUDENT, "--image-size", "224", "--workers",
        "2", "--batch-size", "8", "--epochs", "2", "--device", "cpu",
    ]  # fmt: skip
    count = COUNTS[KIND]
    count.tried += 1
    done = subprocess.run(
        [*ISOLATED, size, *map(str, command)], check=False, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    if done.returncode == 1 and len(said) == 1 and SHARED in said[0]:
        count.detected += 1
    else:
        count.fail(f"of {size}", f"exit code {done.returncode}: {done.stderr}")
    count.require_none_failed()
