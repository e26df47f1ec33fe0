"""Images and targets are joined by (shard, key), or refused; never mispaired."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from milan_pipeline.data.image_table import ImageTable
from milan_pipeline.data.pairs import read_pairs
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.random_access import Place
from tests.support.pairs import (
    image_of,
    joined_pairs,
    saved,
    target_of,
    write_images,
    write_targets,
)

SHARDS = ("x", "y")
KEYS = ("a", "b", "c", "d")
ALL_SHARDS = dict.fromkeys(SHARDS, KEYS)


def joined(images, targets, *, views=2, **options):
    table = joined_pairs(images, targets, views=views, **options)
    read_and_check(table)
    return table


def places_of(table, view):
    return [
        Place(view, view, number, row)
        for number, count in enumerate(table.counts(view).tolist())
        for row in range(count)
    ]


def read_and_check(table):
    """Read both sides of every pair; the bytes must be of the same shard, key and view."""
    for view in range(len(table.views)):
        for pair in read_pairs(table, iter(places_of(table, view))):
            stem = Path(pair.url).stem
            assert pair.image == image_of(stem, pair.key)
            assert pair.targets == (target_of(view, stem, pair.key),)


def keys(table, view=0):
    pairs = read_pairs(table, iter(places_of(table, view)))
    return [(Path(pair.url).stem, pair.key) for pair in pairs]


ALL = [(shard, key) for shard in SHARDS for key in KEYS]


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images", ALL_SHARDS)


def test_every_image_is_paired_with_its_target_of_each_view(images, tmp_path):
    table = joined(images, write_targets(tmp_path / "targets", images, ALL_SHARDS))
    assert keys(table, 0) == keys(table, 1) == ALL
    assert table.missing == 0
    np.testing.assert_array_equal(table.counts(1), [4, 4])


def test_views_that_are_not_asked_for_are_left_alone(images, tmp_path):
    table = joined(images, write_targets(tmp_path / "targets", images, ALL_SHARDS), views=1)
    assert len(table.views) == 1


def test_reordered_targets_are_paired_by_key_in_the_images_order(images, tmp_path):
    other = {"y": ("d", "b", "a", "c"), "x": ("b", "a", "d", "c")}
    table = joined(images, write_targets(tmp_path / "targets", images, other))
    assert keys(table) == ALL


def test_keys_of_different_lengths_are_paired(tmp_path):
    shards = {"x": ("k", "key-longer", "k-")}
    images = write_images(tmp_path / "images", shards)
    targets = write_targets(tmp_path / "targets", images, {"x": ("key-longer", "k", "k-")})
    assert [key for _, key in keys(joined(images, targets))] == list(shards["x"])


# ---- one side is missing

MISSING = {
    "a target key": (None, {"x": KEYS[:3], "y": KEYS}, ["'d'", "without a target"], 2),
    "an image key": ({"x": KEYS, "y": KEYS[1:]}, None, ["'a'", "without an image"], 2),
    "a target shard": (None, {"x": KEYS}, ["no targets for view 0 of y.tar"], 8),
    "an image shard": ({"x": KEYS}, None, ["y.tar"], 8),
}


@pytest.mark.parametrize("or_skip", ["", " or --on-missing skip"])
@pytest.mark.parametrize("case", MISSING)
def test_a_missing_side_is_an_error_that_names_it(case, or_skip, tmp_path):
    image_keys, target_keys, named, _ = MISSING[case]
    images = write_images(tmp_path / "images", image_keys or ALL_SHARDS)
    targets = write_targets(tmp_path / "targets", images, target_keys or ALL_SHARDS)
    with pytest.raises(MissingDataError) as error:
        joined(images, targets, or_skip=or_skip)
    assert all(name in str(error.value) for name in named)
    assert ("--" in str(error.value)) == bool(or_skip)
    assert str(error.value).endswith(or_skip)


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_side_is_left_out_and_counted_on_demand(case, tmp_path):
    image_keys, target_keys, _, count = MISSING[case]
    images = write_images(tmp_path / "images", image_keys or ALL_SHARDS)
    targets = write_targets(tmp_path / "targets", images, target_keys or ALL_SHARDS)
    table = joined(images, targets, on_missing="skip")
    both = [
        (stem, key)
        for stem, key in ALL
        if key in dict(image_keys or dict.fromkeys(SHARDS, KEYS)).get(stem, ())
        and key in dict(target_keys or dict.fromkeys(SHARDS, KEYS)).get(stem, ())
    ]
    assert keys(table, 0) == keys(table, 1) == both
    assert table.missing == count


RENAMED = {"x": KEYS, "y": ("a", "b", "c", "D")}


@pytest.mark.parametrize("on_missing", ["error", "skip"])
def test_keys_that_only_count_alike_are_refused_when_their_shard_is_read(
    images, tmp_path, on_missing
):
    targets = write_targets(tmp_path / "targets", images, RENAMED, views=1)
    table = joined_pairs(images, targets, on_missing=on_missing)
    first, *_, last = places_of(table, 0)
    assert [pair.key for pair in read_pairs(table, iter([first]))] == ["a"]
    with pytest.raises(MissingDataError, match=r"y\.tar do not pair: 1 keys \('d'\) without.*'D'"):
        list(read_pairs(table, iter([last])))


def test_no_index_is_read_before_its_samples_are(images, tmp_path):
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS, views=1)
    for path in tmp_path.rglob("*y.index.npy"):
        path.unlink()
    table = joined_pairs(images, targets)
    assert [pair.key for pair in read_pairs(table, iter(places_of(table, 0)[:4]))] == list(KEYS)
    with pytest.raises(MissingDataError, match=r"y\.index\.npy"):
        list(read_pairs(table, iter(places_of(table, 0)[4:])))


@pytest.mark.parametrize(
    ("lost", "remedy"),
    [
        ("images/x.index.npy", "index"),
        ("targets/view-01/targets-1-y.index.npy", "pack-targets"),
    ],
)
def test_a_lost_index_of_the_first_or_last_shards_is_named_before_training(
    images, tmp_path, lost, remedy
):
    table = joined_pairs(images, write_targets(tmp_path / "targets", images, ALL_SHARDS), views=2)
    table.require_indices()
    (tmp_path / lost).unlink()
    with pytest.raises(MissingDataError, match=rf"{lost} does not exist; .*{remedy}`"):
        table.require_indices()
    if lost.startswith("images"):
        with pytest.raises(MissingDataError, match=lost):
            ImageTable(table.images).require_indices()


def test_a_key_that_extraction_skipped_is_not_missing(images, tmp_path):
    shards = dict.fromkeys(SHARDS, KEYS[:3])
    table = joined(
        images,
        write_targets(tmp_path / "targets", images, shards, skipped=dict.fromkeys(SHARDS, "d")),
    )
    assert keys(table) == [(shard, key) for shard in SHARDS for key in KEYS[:3]]
    assert table.missing == 0


def test_a_view_that_lacks_a_shard_is_named(images, tmp_path):
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS)
    targets = dataclasses.replace(targets, shards=targets.shards[:3])
    with pytest.raises(MissingDataError, match=r"view 1 of y\.tar"):
        joined(images, targets)


# ---- the sides are there, but not of each other


@pytest.mark.parametrize("on_missing", ["error", "skip"])
def test_targets_of_an_older_image_shard_are_refused(tmp_path, on_missing):
    images = write_images(tmp_path / "images", ALL_SHARDS)
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS)
    changed = write_images(tmp_path / "images", {"x": KEYS, "y": (*KEYS, "e")})
    with pytest.raises(MismatchError, match=r"made from another y\.tar: its sha256 was"):
        joined(changed, targets, on_missing=on_missing)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("other", "the identity_hash of view-01/targets-1-y.tar is 'other' and 'ours' that of"),
        (None, "the identity_hash of view-01/targets-1-y.tar is None and 'ours' that of"),
    ],
)
def test_targets_of_another_identity_are_refused(images, tmp_path, found, reason):
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS)
    hashes = ["ours"] * (len(targets.shards) - 1) + [found]
    shards = tuple(
        dataclasses.replace(shard, details={**shard.details, **({"identity_hash": h} if h else {})})
        for shard, h in zip(targets.shards, hashes, strict=True)
    )
    mixed = dataclasses.replace(targets, shards=shards, common={"identity_hash": "ours"})
    with pytest.raises(MismatchError, match=f"{reason}.*run pack-targets again"):
        joined(images, saved(mixed))


def test_swapped_target_shards_are_found_by_their_index(images, tmp_path):
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS)
    swap(tmp_path / "targets/view-00", "targets-0-x.index.npy", "targets-0-y.index.npy")
    with pytest.raises(DataError, match=r"targets-0-x\.index\.npy does not match"):
        joined(images, targets)


def test_swapped_tars_are_found_when_they_are_read(images, tmp_path):
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS)
    swap(tmp_path / "targets/view-00", "targets-0-x.tar", "targets-0-y.tar")
    with pytest.raises(DataError, match=r"targets-0-x\.tar is truncated or damaged"):
        joined(images, targets)


def swap(folder, left, right):
    kept = (folder / left).read_bytes()
    (folder / left).write_bytes((folder / right).read_bytes())
    (folder / right).write_bytes(kept)


def test_a_manifest_edited_by_hand_is_refused(images, tmp_path):
    write_targets(tmp_path / "targets", images, ALL_SHARDS)
    path = tmp_path / "targets/manifest.json"
    document = json.loads(path.read_text())
    document["shards"][0]["details"]["source"] = "y"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="does not match its own hash"):
        load_manifest(str(tmp_path / "targets"), kind="targets")


def test_two_image_shards_of_one_name_are_refused(images, tmp_path):
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS)
    twice = dataclasses.replace(images, shards=(*images.shards, images.shards[0]))
    with pytest.raises(MismatchError, match=r"two shards are called x\.tar"):
        joined(twice, targets)


SIGNED = "https://host/bucket/{}.tar?signature=a/{}.tar"


def test_shards_at_signed_urls_are_joined_by_their_names(images, tmp_path):
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS)
    table = joined_pairs(saved(at_signed_urls(images, ["b", "b"])), targets, views=2)
    np.testing.assert_array_equal(table.counts(1), [4, 4])
    assert table.missing == 0


def test_two_signed_urls_of_one_name_are_refused(images, tmp_path):
    targets = write_targets(tmp_path / "targets", images, ALL_SHARDS)
    twice = dataclasses.replace(images, shards=(images.shards[0],) * 2)
    with pytest.raises(MismatchError, match=r"two shards are called x\.tar"):
        joined_pairs(saved(at_signed_urls(twice, ["b", "c"])), targets)


def at_signed_urls(images, signatures):
    shards = zip(images.shards, signatures, strict=True)
    listed = [
        dataclasses.replace(shard, name=SIGNED.format(shard.stem, end)) for shard, end in shards
    ]
    return dataclasses.replace(images, shards=tuple(listed))


# ---- what a resumed run compares


def test_the_fingerprint_tells_other_pairs_apart(images, tmp_path):
    first = joined(images, write_targets(tmp_path / "one", images, ALL_SHARDS))
    again = joined(images, write_targets(tmp_path / "two", images, ALL_SHARDS))
    assert first.fingerprint() == again.fingerprint()
    fewer = joined(images, write_targets(tmp_path / "three", images, ALL_SHARDS), views=1)
    other = write_images(tmp_path / "other", {"x": KEYS, "y": KEYS[::-1]})
    reordered = joined(other, write_targets(tmp_path / "four", other, ALL_SHARDS))
    assert len({table.fingerprint() for table in (first, fewer, reordered)}) == 3


def test_a_table_goes_to_another_process_without_what_was_read(images, tmp_path):
    table = joined(images, write_targets(tmp_path / "targets", images, ALL_SHARDS))
    sent = pickle.loads(pickle.dumps(table))  # noqa: S301 - our own
    assert "recent" in vars(table)
    assert "recent" not in vars(sent)
    assert keys(sent) == keys(table)
