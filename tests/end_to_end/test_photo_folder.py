"""A real photo folder, from files to a trained student, with default options."""

import json

import pytest

from milan_pipeline.images.decode import decode_rgb
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.shards.sequential import iterate_shard
from tests.support.cli import run_cli
from tests.support.pictures import noise, write_photos
from tests.support.pretrain import TINY_STUDENT

TORN = "torn.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of every kind, one of 48 megapixels, and four files that are no pictures."""
    folder = tmp_path_factory.mktemp("real") / "photos"
    write_photos(folder)
    noise((8000, 6000)).save(folder / "huge.jpg", quality=30)
    (folder / "notes.txt").write_text("holiday")
    (folder / "not a picture.jpg").write_text("I am text")
    (folder / "empty.png").touch()
    (folder / TORN).write_bytes((folder / "baseline.jpg").read_bytes()[:-200])
    return folder


@pytest.fixture(scope="module")
def outputs(folder, tiny_clip, tmp_path_factory):
    """What the four stages make of it."""
    out = tmp_path_factory.mktemp("real-out")
    run_cli("pack-images", folder, out / "shards")
    run_cli(
        "extract-targets", "--images", out / "shards", "--out", out / "targets.zarr",
        "--teacher", f"local-dir:{tiny_clip}",
    )  # fmt: skip
    run_cli("pack-targets", "--targets", out / "targets.zarr", "--out", out / "target-shards")
    run_cli(
        "pretrain", "--images", out / "shards", "--targets", out / "target-shards",
        "--out", out / "run", *TINY_STUDENT, "--max-steps", 10,
    )  # fmt: skip
    return out


def names_of(folder, *, without):
    return {path.name for path in folder.iterdir()} - set(without)


def samples_of(out):
    manifest = load_manifest(str(out / "shards"), kind="images")
    return [sample for shard in manifest.shards for sample in iterate_shard(manifest, shard)]


def test_every_picture_is_packed_unchanged_and_the_rest_is_in_the_ledger(folder, outputs):
    others = ["notes.txt", "not a picture.jpg", "empty.png"]
    pictures = names_of(folder, without=others)
    packed = {data for sample in samples_of(outputs) for data in sample.members.values()}
    assert packed == {(folder / name).read_bytes() for name in pictures}
    manifest = load_manifest(str(outputs / "shards"), kind="images")
    assert [row["file"] for row in manifest.common["ignored"]] == ["notes.txt"]
    skipped = [row for shard in manifest.shards for row in shard.details["skipped"]]
    assert {row["file"] for row in skipped} == {"not a picture.jpg", "empty.png"}
    assert all(row["reason"] for row in skipped)


def test_every_readable_picture_has_a_target_and_the_torn_one_is_in_the_ledger(folder, outputs):
    manifest = load_manifest(str(outputs / "target-shards"), kind="targets")
    tables = [load_index(manifest, shard) for shard in manifest.shards]
    found = [key for table in tables for key in keys_of(table)]
    keys = [sample.key for sample in samples_of(outputs)]
    (torn,) = [
        sample.key
        for sample in samples_of(outputs)
        if (folder / TORN).read_bytes() in sample.members.values()
    ]
    assert found == [key for key in keys if key != torn]
    assert [row["key"] for row in manifest.shards[0].details["skipped"]] == [torn]


def test_ten_steps_are_trained(folder, outputs):
    rows = [json.loads(line) for line in (outputs / "run/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert json.loads((outputs / "run/state.json").read_text())["state"] == "done"
    record = json.loads((outputs / "run/config.json").read_text())
    assert record["counts"]["missing"] == 0
    assert record["content"]["batch_size"] == 8


def test_orientation_is_ignored(folder):
    assert decode_rgb((folder / "rotated.jpg").read_bytes()).shape == (36, 64, 3)
