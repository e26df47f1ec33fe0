"""Labelled samples of shards and folders: the same images and labels, verified, and shares."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from milan_pipeline.cluster.world import World
from milan_pipeline.data.labelled import open_labelled
from milan_pipeline.data.order import OrderConfig
from milan_pipeline.data.stream import SampleSource
from milan_pipeline.errors import ConfigError, DataError, MissingDataError
from milan_pipeline.report.folder_kind import folder_kind
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.writer import Sample, write_shard
from tests.support.cli import run_cli
from tests.support.labelled import forget_labels
from tests.support.pictures import write_picture


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Two classes, of 12 and 8 pictures."""
    root = tmp_path_factory.mktemp("labelled") / "tree"
    for name, count in (("cat", 12), ("dog", 8)):
        for number in range(count):
            write_picture(root / name / f"{number:02d}.jpg", number, (20, 16))
    return root


@pytest.fixture(scope="module")
def shards(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled-shards") / "shards"
    run_cli("pack-images", tree, out, "--samples-per-shard", 7)
    return out


def pairs_of(table):
    return sorted((sample["image"], sample["label"]) for sample in table.read(table.places()))


def test_shards_and_class_folders_hold_the_same_labels(tree, shards):
    folder, packed = (open_labelled(str(place), kind="class") for place in (tree, shards))
    assert folder.samples == packed.samples == 20
    assert folder.classes == packed.classes == ("cat", "dog")
    assert folder.class_count == 2
    assert pairs_of(folder) == pairs_of(packed)


def test_processes_share_the_places(shards):
    table = open_labelled(str(shards), kind="class")
    parts = [list(table.places(World(rank, 3))) for rank in range(3)]
    assert sorted(place for part in parts for place in part) == sorted(table.places())


def test_a_share_takes_some_of_each_class_and_grows(tree, shards):
    for place in (tree, shards):
        table = open_labelled(str(place), kind="class")
        small, large = (table.subset(fraction, seed=3) for fraction in (0.05, 0.5))
        numbers = [sample["label"] for sample in large.read(large.places())]
        assert sorted(numbers) == [0] * 6 + [1] * 4
        assert [label for _, label in pairs_of(small)].count(1) == 1
        assert set(pairs_of(small)) < set(pairs_of(large)) < set(pairs_of(table))
        assert pairs_of(table.subset(0.5, seed=4)) != pairs_of(large)
        assert small.source == table.source
    with pytest.raises(ConfigError, match="share 0 of the labels"):
        table.subset(0, seed=1)


def test_an_order_runs_over_labelled_samples(shards):
    table = open_labelled(str(shards), kind="class")
    order = OrderConfig(seed=0, batch=4, lanes=2, block=8)
    seen = list(SampleSource(table, order, lanes=range(2), steps=range(5)))
    assert len({(sample["__url__"], sample["__key__"]) for sample in seen}) == 20


def test_labels_come_from_the_index_without_reading_a_tar(shards, tmp_path):
    folder = shutil.copytree(shards, tmp_path / "shards")
    labels = [part.labels.tolist() for part in open_labelled(str(folder), kind="class").parts]
    for tar in folder.glob("*.tar"):
        tar.write_bytes(b"")
    table = open_labelled(str(folder), kind="class")
    assert [part.labels.tolist() for part in table.parts] == labels
    assert sorted(np.concatenate(labels)) == [0] * 12 + [1] * 8


def test_labels_that_an_older_index_lacks_are_read_once_and_kept(shards, tmp_path):
    scans, folder = tmp_path / "scans", shutil.copytree(shards, tmp_path / "shards")
    forget_labels(folder)
    assert pairs_of(open_labelled(str(folder), kind="class", scans=scans)) == pairs_of(
        open_labelled(str(shards), kind="class")
    )
    kept, tars = sorted(scans.iterdir()), sorted(folder.glob("*.tar"))
    assert len(kept) == len(tars) == 3
    for tar in tars:
        tar.write_bytes(b"")
    assert open_labelled(str(folder), kind="class", scans=scans).samples == 20
    kept[0].write_bytes(kept[0].read_bytes()[:-1] + b"\xff")
    with pytest.raises(DataError, match=r"\.tar"):  # a damaged scan is not believed
        open_labelled(str(folder), kind="class", scans=scans)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_listed(folder, samples):
    shard = write_shard(str(folder), "x.tar", samples)
    Manifest(kind="images", folder=str(folder), shards=(shard,)).save()


def test_masks_of_shards_are_checked_like_images(tmp_path):
    masks = [png(np.full((4, 4), number, dtype=np.uint8)) for number in range(3)]
    samples = [
        Sample(f"{n}", {"png": png(np.zeros((4, 4, 3), np.uint8)), "mask.png": mask})
        for n, mask in enumerate(masks)
    ]
    write_listed(tmp_path, samples)
    table = open_labelled(str(tmp_path), kind="mask")
    assert [sample["mask"] for sample in table.read(table.places())] == masks
    tar = tmp_path / "x.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(masks[1])
    data[at + 20] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.tar.*do not match the index"):
        list(table.read(table.places()))
    forget_labels(tmp_path)
    with pytest.raises(DataError, match="sha256"):
        open_labelled(str(tmp_path), kind="mask")


def test_a_share_of_masks_is_one_of_all_also_where_samples_have_classes(tmp_path):
    image, mask = png(np.zeros((4, 4, 3), np.uint8)), png(np.zeros((4, 4), np.uint8))
    shares = []
    for name in ("both", "masks"):
        place = tmp_path / name
        place.mkdir()
        members = {"png": image, "mask.png": mask}
        numbers = [{"cls": b"%d" % (n % 5)} if name == "both" else {} for n in range(20)]
        write_listed(place, [Sample(f"{n:02d}", members | own) for n, own in enumerate(numbers)])
        table = open_labelled(str(place), kind="mask")
        assert table.parts[0].labels.tolist() == [0] * 20
        share = table.subset(0.1, seed=1)
        shares.append([sample["__key__"] for sample in share.read(share.places())])
    assert shares[0] == shares[1]
    assert len(shares[0]) == 2


@pytest.mark.parametrize("kind", ["class", "mask"])
def test_a_shard_without_samples_needs_no_labels(tmp_path, kind):
    members = {"jpg": b"x", "cls": b"3", "mask.png": b"y"}
    shards = tuple(
        write_shard(str(tmp_path), f"{name}.tar", samples)
        for name, samples in (("empty", []), ("one", [Sample("a", members)]))
    )
    Manifest(kind="images", folder=str(tmp_path), shards=shards).save()
    table = open_labelled(str(tmp_path), kind=kind)
    assert [len(part) for part in table.parts] == [0, 1]


@pytest.mark.parametrize(
    ("kind", "members", "said"),
    [
        ("class", {"jpg": b"x"}, "no class number"),
        ("class", {"jpg": b"x", "cls": b"-1"}, "no class number"),
        ("mask", {"jpg": b"x", "cls": b"1"}, r"no \.mask\.png member"),
    ],
)
def test_a_sample_without_its_label_is_named(tmp_path, kind, members, said):
    write_listed(tmp_path, [Sample("a/b", members)])
    with pytest.raises(DataError, match=rf"'a/b' of .*x\.tar has {said}"):
        open_labelled(str(tmp_path), kind=kind)


def test_masks_of_ade20ks_layout(tmp_path):
    for split in ("training", "validation"):
        for name in ("a", "b"):
            write_picture(tmp_path / "images" / split / f"{name}.jpg", 1, (9, 7))
            mask = tmp_path / "annotations" / split / f"{name}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            mask.write_bytes(png(np.full((7, 9), len(split), dtype=np.uint8)))
    table = open_labelled(str(tmp_path / "images" / "validation"), kind="mask")
    samples = list(table.read(table.places()))
    assert [sample["__key__"] for sample in samples] == ["a.jpg", "b.jpg"]
    assert np.asarray(Image.open(io.BytesIO(samples[0]["mask"]))).tolist() == [[10] * 9] * 7
    (tmp_path / "annotations" / "validation" / "b.png").unlink()
    with pytest.raises(MissingDataError, match=r"b\.png does not exist"):
        open_labelled(str(tmp_path / "images" / "validation"), kind="mask")


def test_places_that_hold_no_labels_are_refused(tree, tmp_path):
    with pytest.raises(ConfigError, match="neither a folder of image shards"):
        open_labelled(str(tmp_path / "none"), kind="class")
    with pytest.raises(
        ConfigError, match=r"class folders \(.*\.(png|jpg).*\); .*one sub-folder a class"
    ):
        open_labelled(str(tree / "cat"), kind="class")
    with pytest.raises(ConfigError, match="does not say where its masks are"):
        open_labelled(str(tree), kind="mask")


def test_a_manifest_of_another_program_is_none_of_ours(tree, tmp_path):
    folder = shutil.copytree(tree, tmp_path / "tree")
    before = open_labelled(str(folder), kind="class")
    (folder / "manifest.json").write_text('{"name": "my app", "manifest_version": 3}')
    after = open_labelled(str(folder), kind="class")
    assert (after.samples, after.classes) == (before.samples, before.classes)
    with pytest.raises(MissingDataError, match="is no target store"):
        folder_kind(str(folder))


def test_a_link_that_leads_nowhere_is_named_before_anything_is_read(tmp_path):
    write_picture(tmp_path / "cat" / "0.jpg", 0, (8, 8))
    (tmp_path / "cat" / "gone.jpg").symlink_to("../../annex/gone.jpg")
    with pytest.raises(MissingDataError, match=r"gone\.jpg is a link to .*; restore that, or"):
        open_labelled(str(tmp_path), kind="class")


def test_a_folder_copied_anew_is_the_same_source(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "copy", copy_function=shutil.copyfile)
    first, copy = (open_labelled(str(place), kind="class") for place in (tree, tmp_path / "copy"))
    assert copy.source == first.source
