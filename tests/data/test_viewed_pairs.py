"""Pairs from Python: the pixels that the teacher saw, beside what it said of them."""

import dataclasses
import pickle
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from milan_pipeline.data.viewed_pairs import PairDataset, iterate_pairs
from milan_pipeline.errors import ConfigError
from milan_pipeline.images.views import pixels_words
from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.targets.store import open_targets
from milan_pipeline.teacher.spec import TeacherSpec
from milan_pipeline.teacher.teacher import Teacher
from tests.support.cli import run_cli


def test_each_view_is_the_one_that_the_teacher_saw(
    image_shards: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    """The teacher, asked again about these pixels, says what was stored; on any machine in fp32."""
    store, shards, name = tmp_path / "targets.zarr", tmp_path / "shards", f"local-dir:{tiny_clip}"
    run_cli(
        "extract-targets", "--images", image_shards, "--out", store, "--teacher", name,
        "--views", 2, "--batch-size", 4, "--precision", "fp32",
    )  # fmt: skip
    run_cli("pack-targets", "--targets", store, "--out", shards)
    teacher = Teacher.load(TeacherSpec(name=name, precision="fp32"))
    pairs = list(iterate_pairs(images=str(image_shards), targets=str(shards), views=2))
    assert [pair.view for pair in pairs] == [0] * 24 + [1] * 24
    tokens, prior = teacher(torch.stack([pair.pixels_CSS for pair in pairs]))
    assert torch.allclose(tokens, torch.stack([pair.tokens_ND for pair in pairs]), atol=2e-3)
    assert np.allclose(prior.numpy(), [pair.prior_L for pair in pairs], atol=1e-5)


@pytest.mark.parametrize("codec", ["int8", "joint:bytes=6"])
def test_shards_of_any_codec_give_what_the_store_gives(
    image_shards: Path, target_store: Path, tmp_path: Path, codec: str
) -> None:
    store, shards = tmp_path / "targets.zarr", tmp_path / "shards"
    run_cli("transcode", target_store, store, "--codec", codec)
    run_cli("pack-targets", "--targets", store, "--out", shards)
    opened = open_targets(str(store))
    units = [opened.read(view, shard) for view, shard in opened.units if view == 0]
    keys = [key for unit in units for key in unit.keys]
    pairs = list(iterate_pairs(images=str(image_shards), targets=str(shards)))
    assert [pair.key for pair in pairs] == keys
    stored = np.concatenate([unit.tokens_nND for unit in units])
    assert np.allclose([pair.tokens_ND for pair in pairs], stored, atol=1e-6)


def test_another_size_of_the_same_view(image_shards: Path, target_shards: Path) -> None:
    small, large = (
        next(iterate_pairs(images=str(image_shards), targets=str(target_shards), image_size=size))
        for size in (None, 64)
    )
    assert (small.pixels_CSS.shape, large.pixels_CSS.shape) == ((3, 32, 32), (3, 64, 64))
    assert small.key == large.key


def test_a_dataset_gives_the_same_pairs_at_any_place(
    image_shards: Path, target_shards: Path
) -> None:
    images, targets = str(image_shards), str(target_shards)
    pairs = PairDataset(images=images, targets=targets, views=2)
    in_order = list(iterate_pairs(images=images, targets=targets, views=2))
    assert len(pairs) == len(in_order) == 48
    # As a loader's process gets it.
    sent = pickle.loads(pickle.dumps(pairs))  # noqa: S301 - our own bytes
    for number in (47, 0, 23, 24, -1):
        for found in (pairs[number], sent[number]):
            assert (found.key, found.view) == (in_order[number].key, in_order[number].view)
            assert torch.equal(found.pixels_CSS, in_order[number].pixels_CSS)
            assert torch.equal(found.tokens_ND, in_order[number].tokens_ND)
    with pytest.raises(IndexError):
        _ = pairs[48]


def test_torchs_loader_makes_batches(image_shards: Path, target_shards: Path) -> None:
    pairs = PairDataset(images=str(image_shards), targets=str(target_shards))
    batches = list(DataLoader(pairs, batch_size=10, shuffle=True))
    assert [len(batch.key) for batch in batches] == [10, 10, 4]
    assert len({key for batch in batches for key in batch.key}) == 24
    assert batches[0].pixels_CSS.shape == (10, 3, 32, 32)
    assert batches[0].tokens_ND.shape[:1] == batches[0].prior_L.shape[:1] == (10,)


@pytest.mark.parametrize("views", [0, -1, 9, "1", None, 1.0, True])
def test_views_that_are_not_there_are_refused(
    image_shards: Path, target_shards: Path, views: Any
) -> None:
    with pytest.raises(ConfigError, match=r"views=.* is no whole number from 1 to \d+, the views"):
        PairDataset(images=image_shards, targets=target_shards, views=views)


@pytest.mark.parametrize("size", [0, -1, "32", True])
def test_a_view_without_pixels_is_refused(
    image_shards: Path, target_shards: Path, size: Any
) -> None:
    with pytest.raises(ConfigError, match=r"image_size=.* is no number of pixels; give 1 or more"):
        PairDataset(images=image_shards, targets=target_shards, image_size=size)


def test_folders_may_be_paths(image_shards: Path, target_shards: Path, target_store: Path) -> None:
    pair = next(iterate_pairs(images=image_shards, targets=target_shards))
    assert pair.key == PairDataset(images=image_shards, targets=target_shards)[0].key
    assert open_targets(target_store).units == open_targets(str(target_store)).units
    listed = (load_manifest(place, kind="images") for place in (image_shards, str(image_shards)))
    assert len({each.sha256 for each in listed}) == 1


def test_pixels_of_a_teacher_that_was_trained_on_bilinear_ones(
    image_shards: Path, target_shards: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "shards"
    shutil.copytree(target_shards, copy)
    manifest = load_manifest(str(copy), kind="targets")
    identity = deepcopy(manifest.common["identity"])
    identity["preprocessing"]["pixels"] = pixels_words("bilinear")
    stated = {"identity_hash": content_hash(identity)}
    common = {**manifest.common, **stated, "identity": identity}
    shards = tuple(
        dataclasses.replace(shard, details={**shard.details, **stated}) for shard in manifest.shards
    )
    dataclasses.replace(manifest, common=common, shards=shards).save()
    bicubic, bilinear = (
        next(iterate_pairs(images=str(image_shards), targets=str(folder)))
        for folder in (target_shards, copy)
    )
    difference = (bilinear.pixels_CSS.int() - bicubic.pixels_CSS.int()).abs().max()
    assert 0 < difference < 100  # the same view, resized in another way
