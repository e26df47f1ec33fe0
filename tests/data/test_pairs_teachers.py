"""Images and targets of two teachers are joined: a pair has a target of each, or is none."""

from typing import Any

import pytest

from milan_pipeline.data.pairs import PairSamples, read_pairs
from milan_pipeline.errors import MissingDataError
from milan_pipeline.shards.random_access import Place
from tests.support.pairs import image_of, joined_pairs, target_of, write_images, write_targets

KEYS = ("a", "b", "c", "d")
BOTH = {"x": KEYS, "y": KEYS}
Teacher = tuple[dict[str, tuple[str, ...]], dict[str, Any]]
"""The keys of each shard, and options of `write_targets`."""


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", BOTH)


def joined(images, tmp_path, first, second, **options):
    """Join two teachers' targets; each is what `write_targets` takes."""
    stores = [
        write_targets(tmp_path / f"teacher-{number}", images, *own[:1], **own[1])
        for number, own in enumerate((first, second))
    ]
    return joined_pairs(images, *stores, views=2, **options)


def places_of(table, view):
    counts = table.counts(view).tolist()
    return [Place(view, view, n, row) for n, count in enumerate(counts) for row in range(count)]


def keys(table, view=0):
    """Read every pair; the targets must be of its image, of each teacher."""
    found = []
    for pair in read_pairs(table, iter(places_of(table, view))):
        stem = pair.url.rpartition("/")[2].removesuffix(".tar")
        assert pair.image == image_of(stem, pair.key)
        assert pair.targets == (target_of(view, stem, pair.key),) * 2
        found.append(f"{stem}{pair.key}")
    return found


def test_a_pair_has_a_target_of_each_teacher_in_whatever_order(images, tmp_path):
    turned = {"y": KEYS[::-1], "x": ("c", "a", "d", "b")}
    table = joined(images, tmp_path, (BOTH, {}), (turned, {}))
    assert keys(table, 0) == keys(table, 1) == [f"{stem}{key}" for stem in "xy" for key in KEYS]
    assert table.missing == 0
    (sample, *_) = PairSamples(table).read(iter(places_of(table, 1)), None)
    assert (sample["target.npy"], sample["target-1.npy"]) == (target_of(1, "x", "a"),) * 2


def test_what_either_extraction_skipped_is_skipped(images, tmp_path):
    first = {"x": ("a", "c", "d"), "y": KEYS}, {"skipped": {"x": ("b",)}}
    second = {"x": ("a", "d"), "y": ("b", "c", "d")}, {"skipped": {"x": ("b", "c"), "y": ("a",)}}
    table = joined(images, tmp_path, first, second)
    assert keys(table) == ["xa", "xd", "yb", "yc", "yd"]
    assert table.counts(0).tolist() == [2, 3]
    assert table.missing == 0


def test_an_image_without_a_target_of_one_teacher_is_missing(images, tmp_path):
    second: Teacher = {"x": ("a", "b", "d"), "y": KEYS}, {}
    with pytest.raises(MissingDataError, match=r"1 keys \('c'\) without a target"):
        joined(images, tmp_path, (BOTH, {}), second)
    table = joined(images, tmp_path / "again", (BOTH, {}), second, on_missing="skip")
    assert keys(table, 1) == ["xa", "xb", "xd", "ya", "yb", "yc", "yd"]
    assert table.missing == 2  # one in each view


def test_a_shard_that_one_teacher_lacks_is_named_with_the_teachers_folder(images, tmp_path):
    second: Teacher = {"y": KEYS}, {}
    with pytest.raises(MissingDataError, match=r"teacher-1 has no targets for view 0 of x\.tar"):
        joined(images, tmp_path, (BOTH, {}), second)
    table = joined(images, tmp_path / "again", (BOTH, {}), second, on_missing="skip")
    assert keys(table) == ["ya", "yb", "yc", "yd"]
    assert table.missing == 8


def test_the_order_of_training_depends_on_both_teachers_shards(images, tmp_path):
    alone = joined_pairs(images, write_targets(tmp_path / "alone", images, BOTH), views=2)
    table = joined(images, tmp_path, (BOTH, {}), (BOTH, {}))
    turned = joined(images, tmp_path / "again", (BOTH, {}), ({"x": KEYS, "y": KEYS[::-1]}, {}))
    assert len({each.fingerprint() for each in (alone, table, turned)}) == 3
    assert table.total_bytes(0) > alone.total_bytes(0)
