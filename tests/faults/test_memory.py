"""The peak of memory does not depend on how many shards there are, nor on the epochs."""

from pathlib import Path

import pytest

from tests.faults.campaign import SCALE, scaled
from tests.faults.jobs import pretrain_words
from tests.faults.measured import peak_bytes
from tests.faults.victims import Words
from tests.support.finetune import TINY_VIT
from tests.support.pictures import write_picture

FEW, MANY = scaled(10, 5), scaled(200, 40)
"""Not from 5 to 200: extraction holds 64 pictures that it has read ahead, and 5 shards have 40.

It takes 607 MB of 5 shards, 618 MB of 10, 644 MB of 200 and 647 MB of 400. With one arena of malloc
it takes 597, 609 and 625 MB of 5, 10 and 200. All other stages grow by less than 3% from 5 to 200.
"""
EACH = 8
"""Pictures in a shard."""
PADDING = bytes(300_000)
"""After each picture: whoever kept what it reads would have tens of megabytes of it."""
MOST_GROWTH = 1.05


def words_by_stage(root: Path, clip: Path) -> dict[str, Words]:
    """Return each stage's command; each reads what the one before it has written."""
    shards, store, targets = root / "shards", root / "targets.zarr", root / "targets"
    return {
        "pack-images": [
            "pack-images", root / "pictures", shards, "--samples-per-shard", EACH,
        ],
        "extract-targets": [
            "extract-targets", "--images", shards, "--out", store, "--batch-size", 4,
            "--teacher", f"local-dir:{clip}", "--precision", "fp32",
        ],
        "pack-targets": ["pack-targets", "--targets", store, "--out", targets],
        "transcode": ["transcode", store, root / "coded.zarr", "--codec", "int8"],
        "transcode to a fitted codec": [
            "transcode", store, root / "fitted.zarr", "--codec", "joint:bytes=3"
        ],
        "verify": ["verify", store],
        "finetune": [
            "finetune", "--train", shards, "--val", shards, "--out", root / "tuned", *TINY_VIT,
            "--workers", 0, "--batch-size", 8, "--epochs", 1,
        ],
        "pretrain": pretrain_words(
            shards, targets, root / "run", "--workers", 0, "--epochs", 2, "--checkpoint-every", 50
        ),
    }  # fmt: skip


def peaks(root: Path, clip: Path, shards: int) -> dict[str, int]:
    """Run every stage on so many shards; return their peaks in bytes."""
    for number in range(EACH * shards):
        path = root / "pictures" / f"class-{number % 2}" / f"{number:05d}.jpg"
        write_picture(path, number)
        path.write_bytes(path.read_bytes() + PADDING)
    stages = words_by_stage(root, clip)
    return {name: peak_bytes(words, root / f"{name}.log") for name, words in stages.items()}


def test_the_peak_does_not_grow_with_the_shards(tiny_clip, tmp_path) -> None:
    few = peaks(tmp_path / "few", tiny_clip, FEW)
    many = peaks(tmp_path / "many", tiny_clip, MANY)
    growth = {name: round(many[name] / few[name], 3) for name in few}
    assert all(ratio < MOST_GROWTH for ratio in growth.values()), growth


@pytest.mark.skipif(SCALE != "whole", reason="takes minutes; FAULTS=whole")
def test_the_peak_does_not_grow_with_the_epochs(inputs, tmp_path) -> None:
    few, many = (
        peak_bytes(
            pretrain_words(
                inputs.shards, inputs.targets, tmp_path / f"{epochs}", "--workers", 0, "--epochs",
                epochs, "--checkpoint-every", 5,
            ),
            tmp_path / f"{epochs}.log",
        )
        for epochs in (2, 50)
    )  # fmt: skip
    assert many / few < MOST_GROWTH
