"""The Zarr layout: what any reader sees, and equal bytes."""

import hashlib
from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr

from milan_pipeline import storage
from milan_pipeline.errors import DataError, MismatchError, MissingDataError
from milan_pipeline.provenance.identity import build_identity
from milan_pipeline.targets.layout import OUTER_SHARD, create_root, read_identity, root_bytes
from milan_pipeline.targets.reader import open_unit
from tests.support.stores import ARRAYS, files_of, make_block, values_of, write

IDENTITY = build_identity(
    teacher={"name": "ViT-B-16", "grid": [2, 2], "width": 6},
    preprocessing={},
    view_policy={"seed": 0},
    codec={"name": "int8"},
)


@pytest.mark.parametrize(
    ("codec", "count"),
    [("float16", 0), ("int8", 0), ("float16", 1), ("int8", 3), ("int8", OUTER_SHARD + 1)],
)
def test_any_reader_sees_what_was_put_in(tmp_path: Path, codec: str, count: int) -> None:
    block = make_block(count, codec=codec)
    unit, mark = write(tmp_path, block)
    assert mark.n == count
    plain = zarr.open_group(str(tmp_path / unit.path), mode="r")
    ours = open_unit(str(tmp_path), unit, mark)
    names = [*ARRAYS, "scale"] if codec == "int8" else ARRAYS
    for name in names:
        expected = getattr(block, name)
        found = plain[name]
        assert isinstance(found, zarr.Array)
        assert found.dtype == expected.dtype
        assert np.array_equal(found[:], expected)
        assert np.array_equal(ours.values(name), expected)
        lazy = dask.array.from_zarr(str(tmp_path / unit.path), component=name)
        assert np.array_equal(lazy.compute(scheduler="synchronous"), expected)
    assert values_of(plain, "key").tolist() == block.key
    assert sorted(plain.array_keys()) == sorted([*names, "key"])


@pytest.mark.parametrize("count", [255, 256, 257, 600])
def test_outer_shards(tmp_path: Path, count: int) -> None:
    block = make_block(count)
    unit, mark = write(tmp_path, block, sizes=[64] * (count // 64))
    codes = open_unit(str(tmp_path), unit, mark).array("codes")
    assert codes.shards == (min(256, count), 5, 6)
    assert codes.chunks == (1, 5, 6)
    assert np.array_equal(codes[:], block.codes)
    assert len([name for name in mark.objects if name.startswith("codes/c/")]) == -(-count // 256)


def test_bytes_do_not_depend_on_blocks_or_on_reruns(tmp_path: Path) -> None:
    rows = 2 * OUTER_SHARD + 88
    block = make_block(rows, codec="int8")
    unit, mark = write(tmp_path / "a", block, sizes=[rows])
    first = files_of(tmp_path / "a")
    for name, sizes in (("b", [50] * 12), ("c", [200, 300]), ("d", [550, 50]), ("a", [300])):
        assert write(tmp_path / name, block, sizes=sizes)[1] == mark
        assert files_of(tmp_path / name) == first
    assert set(mark.objects) == {
        path.removeprefix(f"{unit.path}/") for path in first if path.startswith(unit.path)
    }


def test_fewer_samples_than_the_shard_lists(tmp_path: Path) -> None:
    block = make_block(3)
    for samples in (4, 300):
        unit, mark = write(tmp_path, block, samples=samples)
        group = open_unit(str(tmp_path), unit, mark)
        assert np.array_equal(group.values("codes"), block.codes)


def test_all_zero_codes_are_stored(tmp_path: Path) -> None:
    block = make_block(3)
    block.codes[:] = 0
    unit, _ = write(tmp_path, block)
    assert (tmp_path / unit.path / "codes/c/0/0/0").stat().st_size > block.codes.nbytes


@pytest.mark.parametrize("name", ["codes", "prior", "box", "flip", "size", "digest", "scale"])
def test_any_reader_notices_a_flipped_bit(tmp_path: Path, name: str) -> None:
    unit, mark = write(tmp_path, make_block(3, codec="int8"))
    chunk = next(path for path in mark.objects if path.startswith(f"{name}/c/"))
    path = tmp_path / unit.path / chunk
    damaged = bytearray(path.read_bytes())
    damaged[0] ^= 1
    path.write_bytes(bytes(damaged))
    group = zarr.open_group(str(tmp_path / unit.path), mode="r")
    with pytest.raises(ValueError, match=r"(?i)checksum"):
        values_of(group, name)


def test_the_root_says_what_the_targets_are(tmp_path: Path) -> None:
    url = str(tmp_path / "targets.zarr")
    create_root(url, IDENTITY)
    before = files_of(tmp_path)
    create_root(url, IDENTITY)
    assert files_of(tmp_path) == before
    assert read_identity(url) == IDENTITY
    assert zarr.open_group(url, mode="r").attrs["identity"] == IDENTITY


def test_other_targets_are_refused_by_field(tmp_path: Path) -> None:
    url = str(tmp_path / "targets.zarr")
    create_root(url, IDENTITY)
    teacher = IDENTITY["teacher"] | {"name": "ViT-L-14"}
    other = IDENTITY | {"teacher": teacher, "view_policy": {"seed": 1}}
    message = (
        r"teacher\.name is 'ViT-B-16' there and 'ViT-L-14' here, "
        r"view_policy\.seed is 0 there and 1 here; give another --out"
    )
    with pytest.raises(MismatchError, match=message):
        create_root(url, other)
    assert read_identity(url) == IDENTITY
    create_root(url, other, overwrite=True)
    assert read_identity(url) == other


def test_a_damaged_root_is_named(tmp_path: Path) -> None:
    url = str(tmp_path / "targets.zarr")
    with pytest.raises(MissingDataError, match=r"targets\.zarr holds no target store"):
        read_identity(url)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(MissingDataError, match="it has shards: give the store"):
        read_identity(str(tmp_path))
    create_root(url, IDENTITY)
    path = tmp_path / "targets.zarr" / "zarr.json"
    good = path.read_bytes()
    passed = 0
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        try:
            assert read_identity(url) == IDENTITY
            passed += 1
        except DataError as error:
            assert url in str(error)  # noqa: PT017 - passing is allowed, too
    assert passed < 0.5 * len(good)
    inside = f"{url}/view-00"
    for given in (inside, f"{url}/zarr.json"):
        (path.parent / "transcode.json").touch()
        with pytest.raises(MissingDataError, match=f"it lies in {url}: give that folder"):
            read_identity(given)
    for text in ("{}", "[]", '{"attributes": 1}', '{"attributes": {"format_version": 1}}'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"is no target store|does not say what"):
            read_identity(url)


def test_a_store_of_another_format_is_named(tmp_path: Path) -> None:
    root = root_bytes(IDENTITY).replace(b'"format_version": 1', b'"format_version": 2')
    (tmp_path / "zarr.json").write_bytes(root)
    with pytest.raises(DataError, match="has format version 2, this program reads 1"):
        read_identity(str(tmp_path))


def test_left_over_temporaries_do_no_harm(tmp_path: Path) -> None:
    block = make_block(3)
    unit, mark = write(tmp_path, block)
    (tmp_path / unit.path / "codes" / f".{hashlib.md5(b'').hexdigest()}.tmp").write_bytes(b"x")  # noqa: S324
    group = open_unit(str(tmp_path), unit, mark)
    assert np.array_equal(group.values("codes"), block.codes)
    assert storage.list_names(str(tmp_path / unit.path / "codes")) == ["c", "zarr.json"]
