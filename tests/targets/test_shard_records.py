"""Target records: one fixed layout, readable by numpy and WebDataset."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray

from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.errors import DataError
from milan_pipeline.provenance.record import read_record
from milan_pipeline.shards.manifest import Manifest, load_manifest
from milan_pipeline.targets.layout import OUTER_SHARD, read_identity
from milan_pipeline.targets.marks.columns import BriefMark
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.shard_records import RecordLayout, layout_of, write_target_shard
from milan_pipeline.targets.unit_list import units_of_extent
from milan_pipeline.targets.units import Unit, read_marks
from tests.support.stores import make_block, targets_of, unit_with, write


def identity(codec: str, *, patches: int = 6, width: int = 5) -> dict[str, Any]:
    teacher = {"grid": [1, patches], "width": width}
    return {"teacher": teacher, "view_policy": {}, "codec": {"name": codec}}


def finished_units(store: Path) -> list[tuple[Unit, BriefMark]]:
    record = read_record(str(store / "extract-targets.json"))
    assert record is not None
    marks = read_marks(str(store), 2)
    return [(unit, marks[unit.mark_path]) for unit in units_of_extent(record["extent"], 2)]


def a_record(layout: RecordLayout) -> NDArray[np.void]:
    record = np.zeros((), layout.dtype)
    record["codes"] = np.arange(35).reshape(7, 5)
    record["prior"] = np.arange(6) / 16
    record["box"], record["flip"], record["digest"] = (1, 2, 3, 4), True, 2**64 - 1
    return record


@pytest.mark.parametrize(
    ("codec", "names"),
    [
        ("float16", ("box", "flip", "digest", "prior", "codes")),
        ("int8", ("box", "flip", "digest", "prior", "scale", "codes")),
    ],
)
def test_round_trip_without_a_copy(codec: str, names: tuple[str, ...]) -> None:
    layout = layout_of(identity(codec))
    assert layout.dtype.names == names
    record = a_record(layout)
    data = layout.to_bytes(record)
    assert layout.is_shared
    assert layout.bytes_per_sample == layout.dtype.itemsize
    for stored in (data, data[-layout.bytes_per_sample :]):
        found = layout.from_bytes(stored)
        assert found == record
        assert not found["codes"].flags.owndata
    assert np.load(io.BytesIO(data), allow_pickle=False) == record


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:0],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\0" + data[1:],
        lambda data: data.replace(b"prior", b"Prior"),
    ],
)
def test_another_layout_is_refused(damage) -> None:
    layout = layout_of(identity("float16"))
    with pytest.raises(DataError, match="another layout"):
        layout.from_bytes(damage(layout.to_bytes(a_record(layout))))
    with pytest.raises(DataError, match="another layout"):
        layout_of(identity("int8")).from_bytes(layout.to_bytes(a_record(layout)))


def test_a_patch_without_attention_stays_drawable(target_store: Path) -> None:
    found = read_identity(str(target_store))
    unit, mark = finished_units(target_store)[0]
    group = open_unit(str(target_store), unit, mark)
    arrays = {name: group.values(name) for name in layout_of(found).dtype.names or ()}
    arrays["prior"][0, :3] = 0
    records = layout_of(found).records_of(unit_with(arrays), range(2))
    assert records["prior"].min() > 0
    assert np.array_equal(records["prior"][1], arrays["prior"][1])


def test_an_array_of_another_type_is_refused() -> None:
    """A prior that was not coded would become zeros, which numpy does without a word."""
    layout = layout_of({"teacher": {"grid": [2, 3], "width": 5}, "view_policy": {},
                        "codec": parse_codec("joint:bytes=2").parameters()})  # fmt: skip
    zeros = np.zeros(2, layout.dtype)
    arrays = {name: zeros[name] for name in layout.dtype.names or ()}
    assert np.array_equal(layout.records_of(unit_with(arrays), range(2)), zeros)
    arrays["prior"] = np.full((2, 6), 0.5, np.float32)
    with pytest.raises(DataError, match=r"prior is float32, where its codec has uint8; extract"):
        layout.records_of(unit_with(arrays), range(2))


def stock_records(path: Path) -> Iterator[tuple[str, NDArray[np.void]]]:
    for row in webdataset.WebDataset(str(path), shardshuffle=False).decode():
        if "keys.json" in row:
            assert row["__key__"] == row["keys.json"][0]
            yield from zip(row["keys.json"], row["targets.npy"], strict=True)
        else:
            yield row["__key__"], row["target.npy"]


def plain_records(path: Path) -> Iterator[tuple[str, NDArray[np.void]]]:
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        content = {name: file.read() for name, file in files.items() if file is not None}
    for name, data in content.items():
        key, _, extension = name.rpartition(".target")
        if extension == "s.npy":
            keys = json.loads(content[f"{key}.keys.json"])
            yield from zip(keys, np.load(io.BytesIO(data), allow_pickle=False), strict=True)
        elif extension == ".npy":
            yield key, np.load(io.BytesIO(data), allow_pickle=False)


# WebDataset leaves the files that it reads to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("packed", ["target_shards", "lone_target_shards"])
@pytest.mark.parametrize("reader", [stock_records, plain_records])
def test_other_readers_agree_on_target_shards(
    target_store: Path,
    packed: str,
    reader: Callable[[Path], Iterator[tuple[str, NDArray[np.void]]]],
    request: pytest.FixtureRequest,
) -> None:
    folder = request.getfixturevalue(packed)
    layout = layout_of(read_identity(str(target_store)))
    units = {unit.path: (unit, mark) for unit, mark in finished_units(target_store)}
    manifest = load_manifest(str(folder), kind="targets")
    assert len(manifest.shards) == len(units) == 6
    for shard in manifest.shards:
        path = f"view-{shard.details['view']:02d}/{shard.details['source']}"
        group = open_unit(str(target_store), *units[path])
        values = {name: group.values(name) for name in group.names}
        ours = targets_of(manifest, shard)
        rows = zip(reader(folder / shard.name), ours, strict=True)
        for number, ((stock_key, record), (key, data)) in enumerate(rows):
            assert stock_key == key == values["key"][number]
            assert record == layout.from_bytes(data)
            for name in layout.dtype.names or ():
                assert np.array_equal(record[name], values[name][number])


def test_samples_share_members_in_blocks(tmp_path: Path) -> None:
    block = make_block(2 * OUTER_SHARD + 1)
    unit, mark = write(tmp_path / "store", block)
    layout = layout_of(identity("float16", patches=4, width=6))
    shard = write_target_shard(
        str(tmp_path), "t.tar", store=str(tmp_path / "store"), unit=unit, mark=mark, layout=layout,
        identity_hash=mark.identity_hash,
    )  # fmt: skip
    manifest = Manifest(kind="targets", folder=str(tmp_path), shards=(shard,))
    with tarfile.open(tmp_path / "t.tar") as tar:
        assert tar.getnames() == [
            f"class/ä-{first}.{extension}"
            for first in (0, OUTER_SHARD, 2 * OUTER_SHARD)
            for extension in ("targets.npy", "keys.json")
        ]
    found = targets_of(manifest, shard)
    assert [key for key, _ in found] == block.key
    assert {len(data) for _, data in found} == {layout.bytes_per_sample}
    for number, (_, data) in enumerate(found):
        record = layout.from_bytes(data)
        assert np.array_equal(record["codes"], block.codes[number])
        assert record["digest"] == block.digest[number]
