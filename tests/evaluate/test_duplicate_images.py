"""Images to score on that are among those to learn from are found, in folders and in shards."""

import dataclasses
import shutil

import pytest

from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.evaluate.duplicate_images import copies, copies_of_shards
from milan_pipeline.shards.manifest import load_manifest
from tests.support.cli import run_cli
from tests.support.labelled import write_coloured
from tests.support.remote import noting, watched


@pytest.fixture
def folders(tmp_path):
    """Twelve pictures to learn from; nine to score on, of which two are copies of other names."""
    train, val = write_coloured(tmp_path / "train", 4), write_coloured(tmp_path / "val", 3, seed=1)
    for name, other in (("red/000.jpg", "red/002.jpg"), ("blue/003.jpg", "green/001.jpg")):
        shutil.copy(train / name, val / other)
    return train, val


@pytest.mark.parametrize("packed", [(), (0,), (1,), (0, 1)])
def test_copies_are_counted(packed, folders, tmp_path):
    places = list(folders)
    for number in packed:
        places[number] = tmp_path / f"shards-{number}"
        run_cli("pack-images", folders[number], places[number], "--samples-per-shard", 5)
    assert copies(*(open_labelled(str(place), kind="class") for place in places)) == (2, 9)


def test_copies_in_shards_are_counted_by_their_indices_alone(folders, tmp_path):
    manifests = []
    for number, folder in enumerate(folders):
        place = tmp_path / f"shards-{number}"
        run_cli("pack-images", folder, place, "--samples-per-shard", 5)
        for tar in place.glob("*.tar"):
            tar.unlink()
        manifests.append(load_manifest(str(place), kind="images"))
    train, val = manifests
    assert copies_of_shards(train, val) == 2
    assert copies_of_shards(train, train) == 12
    assert copies_of_shards(dataclasses.replace(train, shards=()), val) == 0
    far = load_manifest(watched(tmp_path / "shards-1"), kind="images")
    with noting("read") as reads:
        assert copies_of_shards(train, far) is None
    assert reads == []
    next((tmp_path / "shards-0").glob("*.index.npy")).unlink()
    assert copies_of_shards(train, val) is None


def test_few_images_are_read_where_there_are_many(folders):
    tables = [open_labelled(str(place), kind="class") for place in folders]
    assert copies(*tables, most_read=0) == (0, 9)
