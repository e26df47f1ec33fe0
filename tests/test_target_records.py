"""Target records: one fixed layout, readable by numpy and WebDataset."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from numpy.typing import NDArray

from milan_pipeline.errors import DataError
from milan_pipeline.manifest import load_manifest
from milan_pipeline.provenance import read_record
from milan_pipeline.shards import iterate_shard
from milan_pipeline.target_records import RecordLayout, layout_of
from milan_pipeline.target_store import read_identity
from milan_pipeline.unit_reader import open_unit
from milan_pipeline.units import Mark, Unit, read_marks, units_of_extent
from tests.conftest import values_of


def identity(codec: str) -> dict[str, Any]:
    return {"teacher": {"grid": [2, 3], "width": 5}, "codec": {"name": codec}}


def finished_units(store: Path) -> list[tuple[Unit, Mark]]:
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
    assert len(data) == layout.bytes_per_sample
    found = layout.from_bytes(data)
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
    arrays = {name: values_of(group, name) for name in layout_of(found).dtype.names or ()}
    arrays["prior"][0, :3] = 0
    records = layout_of(found).records_of(arrays, 0, 2)  # type: ignore[arg-type]
    assert records["prior"].min() > 0
    assert np.array_equal(records["prior"][1], arrays["prior"][1])


# WebDataset leaves the files that it reads to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_stock_readers_agree_on_target_shards(target_store: Path, target_shards: Path) -> None:
    found = read_identity(str(target_store))
    layout = layout_of(found)
    units = {unit.path: pair for pair in finished_units(target_store)
             for unit in pair[:1]}  # fmt: skip
    manifest = load_manifest(str(target_shards), kind="targets")
    assert len(manifest.shards) == len(units) == 6
    for shard in manifest.shards:
        path = f"view-{shard.details['view']:02d}/{shard.details['source']}"
        group = open_unit(str(target_store), *units[path])
        values = {name: values_of(group, name) for name in group.array_keys()}
        stock = webdataset.WebDataset(str(target_shards / shard.name), shardshuffle=False)
        rows = zip(stock.decode(), iterate_shard(manifest, shard), strict=True)
        for number, (row, sample) in enumerate(rows):
            record = row["target.npy"]
            assert row["__key__"] == sample.key == values["key"][number]
            assert record == layout.from_bytes(sample.members["target.npy"])
            for name in layout.dtype.names or ():
                assert np.array_equal(record[name], values[name][number])
