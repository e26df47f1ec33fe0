"""The bytes of a store, foretold: every file of a unit, to the byte."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from milan_pipeline.codecs.fitting import fit_codec
from milan_pipeline.codecs.record_arrays import array_shapes
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.images.views import ViewPolicy
from milan_pipeline.planning.store_size import KeyBytes, StoreSize
from milan_pipeline.targets.codec_files import write_store_codec
from milan_pipeline.targets.expected_identity import expected_extracted
from milan_pipeline.targets.layout import create_root, root_bytes
from milan_pipeline.targets.units import Unit
from milan_pipeline.teacher.description import visible_identity
from milan_pipeline.teacher.spec import TeacherSpec
from tests.support.stores import identity_of, make_block, write


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def keys_of(keys: list[str]) -> KeyBytes:
    lengths = [len(key.encode()) for key in keys]
    return KeyBytes(sum(lengths), max(lengths, default=0))


@pytest.mark.parametrize("codec", ["float16", "int8"])
@pytest.mark.parametrize(("patches", "width"), [(4, 6), (49, 24)])
@pytest.mark.parametrize("count", [0, 1, 10, 256, 257, 600])
def test_a_unit_takes_what_was_said(
    tmp_path: Path, codec: str, patches: int, width: int, count: int
) -> None:
    block = make_block(count, codec=codec, patches=patches, width=width)
    unit, mark = write(tmp_path, block)
    wanted = mark.to_bytes()
    written = size_of(tmp_path / unit.path) + len(wanted)
    # Only the identity's hash is shorter in this test's marks, and a shard's in both.
    hash_bytes = 64 - len(mark.identity_hash)
    size = StoreSize(identity_of(codec, patches, width))
    assert size.unit(unit, keys_of(block.key)) == written + hash_bytes


@pytest.mark.parametrize("count", [0, 10, 600])
def test_files_and_folders_are_counted(tmp_path: Path, count: int) -> None:
    unit, _ = write(tmp_path / "store", make_block(count))
    there = sum(1 for _ in (tmp_path / "store").rglob("*")) + 1
    size = StoreSize(identity_of("float16", 4, 6))
    # Not written here: the root's group, the stage's record, progress reports and their folder.
    assert size.files([unit]) == there + 4
    assert size.files([]) == 0


def test_images_that_are_skipped_change_little(tmp_path: Path) -> None:
    block = make_block(300, patches=49, width=24)
    unit, mark = write(tmp_path, block, samples=303)
    size = StoreSize(identity_of("float16", 49, 24)).unit(unit, keys_of(block.key))
    assert abs(size / (size_of(tmp_path / unit.path) + len(mark.to_bytes())) - 1) < 0.02


def test_units_add_up_and_groups_are_counted(tmp_path: Path) -> None:
    identity = expected_extracted(
        visible_identity(TeacherSpec(name="ViT-B-16", pretrained="openai")),
        ViewPolicy(),
        parse_codec("int8"),
    )
    create_root(str(tmp_path), identity)
    root = size_of(tmp_path)
    block = make_block(3, codec="int8", patches=196, width=512)
    unit, _ = write(tmp_path, block)
    shard = dataclasses.replace(unit.shard, sha256="5" * 64)
    size = StoreSize(identity)
    units = [(Unit(view, shard), keys_of(block.key)) for view in range(2)]
    assert size.units(units) == 2 * size.unit(*units[0])
    view_group = (tmp_path / "view-00" / "zarr.json").stat().st_size
    assert size.groups(3) == root + 3 * view_group


@pytest.mark.parametrize("codec", ["joint:bytes=3", "joint:bytes=2"])
def test_a_fitted_codec_is_counted_at_its_largest(tmp_path: Path, codec: str) -> None:
    identity = identity_of(codec, 4, 16)
    fitted = fit_codec(parse_codec(codec), torch.randn(30, 5, 16, generator=torch.manual_seed(0)))
    write_store_codec(str(tmp_path), fitted)
    plain = StoreSize(identity_of("float16", 4, 16))
    root = len(root_bytes(identity)) - len(root_bytes(identity_of("float16", 4, 16)))
    foretold = StoreSize(identity).groups(2) - plain.groups(2) - root
    written = size_of(tmp_path)
    largest = array_shapes(fitted.spec, 5, 16)
    smaller = sum(
        (math.prod(largest[name]) - values.size) * values.itemsize
        for name, values in fitted.arrays.items()
    )
    assert smaller >= 0
    assert 0 <= foretold - written - smaller <= 60  # digits of shapes, in metadata
