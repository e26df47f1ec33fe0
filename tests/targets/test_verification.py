"""The structure of units of any size; damage of every kind is in tests/stages/test_verify.py."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.provenance.identity import build_identity, content_hash
from milan_pipeline.shards.index import load_index
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.layout import UnitBlock
from milan_pipeline.targets.units import Mark, Unit
from milan_pipeline.targets.verification import StoreCheck
from milan_pipeline.targets.writer import UnitWriter
from tests.support.stores import make_block

POLICY = ViewPolicy(seed=2)
IDENTITY = build_identity(
    teacher={"grid": [2, 2], "width": 6},
    preprocessing={},
    view_policy=POLICY.as_dict(),
    codec=make_codec("int8").parameters(),
)


def sound_block(images: Manifest) -> UnitBlock:
    """Targets of a manifest's only shard, each 40 x 50 pixels, as view 1."""
    table = load_index(images, images.shards[0])
    keys = [key.decode() for key in table["key"].tolist()]
    block = make_block(len(keys), codec="int8")
    boxes = [POLICY.box(40, 50, key, 1) for key in keys]
    rows = [(b.top, b.left, b.height, b.width) for b in boxes]
    return UnitBlock(
        key=keys,
        codes=block.codes,
        scale=block.scale,
        prior=np.full((len(keys), 4), 0.2, np.float32),
        box=np.array(rows, np.float32).reshape(-1, 4),
        flip=np.array([b.flip for b in boxes], np.bool_),
        size=np.tile(np.array([40, 50], np.int32), (len(keys), 1)),
        digest=table["xxh3"].astype(np.uint64),
    )


def images_of(folder: Path, count: int) -> Manifest:
    samples = [Sample(f"k{number}", {"jpg": bytes([number % 251])}) for number in range(count)]
    shard = write_shard(str(folder / "images"), "i.tar", samples)
    return Manifest(kind="images", folder=str(folder / "images"), shards=(shard,))


def write(store: Path, images: Manifest, block: UnitBlock, skipped: list[str]) -> tuple[Unit, Mark]:
    unit = Unit(1, images.shards[0])
    writer = UnitWriter(
        str(store), unit, identity_hash=content_hash(IDENTITY), codec=make_codec("int8"),
        shape=(5, 6),
    )  # fmt: skip
    writer.add(block)
    return unit, writer.finish([{"key": key, "reason": "r"} for key in skipped])


@pytest.mark.parametrize("count", [0, 1, 256, 257, 300])
def test_what_was_written_is_sound(tmp_path: Path, count: int) -> None:
    images = images_of(tmp_path, count)
    unit, mark = write(tmp_path, images, sound_block(images), [])
    for known in (images, None):
        check = StoreCheck(url=str(tmp_path), identity=IDENTITY, images=known)
        assert check.faults(unit, mark) == []
    assert check.faults(unit, None) == ["not done yet"]


def test_skipped_images_are_no_fault(tmp_path: Path) -> None:
    images = images_of(tmp_path, 300)
    whole = sound_block(images)
    kept: dict[str, Any] = {
        name: [key for key in value if key != "k7"]
        if name == "key"
        else np.delete(value, 7, axis=0)
        for name, value in vars(whole).items()
    }
    unit, mark = write(tmp_path, images, dataclasses.replace(whole, **kept), ["k7"])
    check = StoreCheck(url=str(tmp_path), identity=IDENTITY, images=images)
    assert check.faults(unit, mark) == []
    unlisted = dataclasses.replace(mark, skipped=[])
    assert "row 7 is ['k8'], not ['k7']" in check.faults(unit, unlisted)[0]


def test_all_faults_of_a_unit_are_said(tmp_path: Path) -> None:
    images = images_of(tmp_path, 3)
    block = sound_block(images)
    wrong = dataclasses.replace(block, prior=block.prior * 9, digest=block.digest + np.uint64(1))
    unit, mark = write(tmp_path, images, wrong, [])
    faults = StoreCheck(url=str(tmp_path), identity=IDENTITY, images=images).faults(unit, mark)
    assert [fault.split()[0] for fault in faults] == ["prior", "digest"]


def test_another_codec_s_unit(tmp_path: Path) -> None:
    images = images_of(tmp_path, 3)
    unit, mark = write(tmp_path, images, sound_block(images), [])
    identity = IDENTITY | {"codec": make_codec("float16").parameters()}
    mark = dataclasses.replace(mark, identity_hash=content_hash(identity))
    faults = StoreCheck(url=str(tmp_path), identity=identity, images=images).faults(unit, mark)
    assert "codes is of type int8, not float16" in faults
