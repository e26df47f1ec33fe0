"""What is known and what is assumed of a data set."""

import dataclasses
from pathlib import Path

from milan_pipeline.planning.dataset import INDICES_READ, assumed_dataset, listed_dataset
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.shards.writer import Sample, write_shard


def test_a_listed_data_set_is_read_from_its_indices(image_shards: Path) -> None:
    manifest = load_manifest(str(image_shards), kind="images")
    dataset = listed_dataset(manifest)
    assert dataset.images == 24
    assert not dataset.assumed
    assert [keys.total for _, keys in dataset.shards] == [70, 70, 28]  # ant/000
    assert {keys.longest for _, keys in dataset.shards} == {7}
    tars = sum(shard.bytes for shard in manifest.shards)
    assert 0 < 24 * dataset.image_bytes < tars


def test_of_many_shards_some_speak_for_the_rest(tmp_path: Path) -> None:
    shards = [
        write_shard(
            str(tmp_path),
            f"{number}.tar",
            [Sample(f"{sample:04d}", {"jpg": b"0" * 10}) for sample in range(1 + number % 8)],
        )
        for number in range(INDICES_READ + 6)
    ]
    manifest = Manifest(kind="images", folder=str(tmp_path), shards=tuple(shards))
    dataset = listed_dataset(manifest)
    assert dataset.assumed == ["keys and images are as in 64 of 70 indices"]
    parts = (shards[:40], shards[40:])
    each = [listed_dataset(dataclasses.replace(manifest, shards=tuple(part))) for part in parts]
    assert not any(part.assumed for part in each)
    assert list(dataset.shards) == [shard for part in each for shard in part.shards]
    assert dataset.image_bytes == 10


def test_no_shards_are_no_images() -> None:
    dataset = listed_dataset(Manifest(kind="images", folder="x", shards=()))
    assert (dataset.images, dataset.image_bytes) == (0, 0)


def test_an_assumed_data_set_says_so() -> None:
    dataset = assumed_dataset(2500, 1000, 7)
    assert [shard.samples for shard, _ in dataset.shards] == [1000, 1000, 500]
    assert [shard.name for shard, _ in dataset.shards][2] == "images-000002.tar"
    assert "images of 7 bytes are assumed" in dataset.assumed[0]
    assert [shard.samples for shard, _ in assumed_dataset(3, 3, 7).shards] == [3]
