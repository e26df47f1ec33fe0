"""A fitted codec's arrays in a store and beside shards: damage is an error, never another codec."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.interface import Codec
from milan_pipeline.errors import DataError
from milan_pipeline.provenance.identity import Identity
from milan_pipeline.targets.codec_bytes import store_codec_objects
from milan_pipeline.targets.codec_files import (
    CODEC_FILE,
    read_shards_codec,
    read_store_codec,
    write_shards_codec,
    write_store_codec,
)
from tests.support.fitted import fitted, sample
from tests.support.stores import values_of

FILES: list[tuple[Callable[[str, Codec], None], Callable[[str, Identity], Codec]]] = [
    (write_store_codec, read_store_codec),
    (write_shards_codec, read_shards_codec),
]


def identity_of(codec: Codec) -> Identity:
    return {"codec": codec.parameters()}


@pytest.mark.parametrize(("write", "read"), FILES)
@pytest.mark.parametrize("text", ["joint:bytes=4", "joint:bytes=3"])
def test_round_trip(tmp_path, write, read, text):
    codec = fitted(text)
    write(str(tmp_path), codec)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = read(str(tmp_path), identity_of(codec))
    codes = codec.encode(sample(2)).codes_nNC
    assert torch.equal(again.decode(codes, None), codec.decode(codes, None))
    write(str(tmp_path), again)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("write", "read"), FILES)
def test_a_codec_without_arrays_writes_nothing(tmp_path, write, read):
    write(str(tmp_path), make_codec("int8"))
    assert not list(tmp_path.iterdir())
    assert read(str(tmp_path), {"codec": {"name": "int8"}}).spec.name == "int8"


def test_any_zarr_reader_sees_the_arrays(tmp_path):
    codec = fitted("joint:bytes=4")
    write_store_codec(str(tmp_path), codec)
    group = zarr.open_group(tmp_path / "codec", mode="r")
    for name, values in codec.arrays.items():
        assert np.array_equal(values_of(group, name), values)


@pytest.mark.parametrize("path", sorted(store_codec_objects(fitted("joint:bytes=4").arrays)))
def test_an_object_that_is_missing_or_damaged(tmp_path, path):
    codec = fitted("joint:bytes=4")
    write_store_codec(str(tmp_path), codec)
    place = tmp_path / "codec" / path
    data = place.read_bytes()
    place.unlink()
    with pytest.raises(DataError, match=r"is missing, without which no target can be decoded"):
        read_store_codec(str(tmp_path), identity_of(codec))
    if path.endswith("zarr.json"):
        place.write_bytes(data[: len(data) // 2])
    else:
        place.write_bytes(data[:5] + bytes([data[5] ^ 4]) + data[6:])
    with pytest.raises(DataError, match=r"damaged|are not those that the targets were stored with"):
        read_store_codec(str(tmp_path), identity_of(codec))


def test_an_array_is_one_object_whatever_its_size() -> None:
    arrays = dict(fitted("joint:bytes=4").arrays)
    arrays["basis"] = np.zeros((17, 768, 768), np.float16)  # 20 MB: of `high` at a width of 768
    paths = [path for path in store_codec_objects(arrays) if path.startswith("basis/")]
    assert paths == ["basis/c/0/0/0", "basis/zarr.json"]


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_torn_file_beside_shards(tmp_path, keep):
    codec = fitted("joint:bytes=3")
    write_shards_codec(str(tmp_path), codec)
    place = tmp_path / CODEC_FILE
    place.write_bytes(place.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"{CODEC_FILE} is damaged .*; copy the shards again"):
        read_shards_codec(str(tmp_path), identity_of(codec))


@pytest.mark.parametrize(("write", "read"), FILES)
def test_another_codec_s_arrays_are_refused(tmp_path: Path, write, read):
    write(str(tmp_path), fitted("joint:bytes=4"))
    with pytest.raises(DataError, match="are not those that the targets were stored with"):
        read(str(tmp_path), identity_of(fitted("joint:bytes=2")))
