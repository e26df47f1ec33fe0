"""The sample a codec is fitted to: the same whatever the order, never what is measured."""

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline.core.interrupts import StopRequest
from milan_pipeline.errors import DataError, InterruptedRunError
from milan_pipeline.provenance.record import read_record
from milan_pipeline.targets.codec_files import read_store_codec
from milan_pipeline.targets.codec_sample import (
    SAMPLE_PATCHES,
    rows_by_hash,
    stored_sample,
    stored_tokens,
    subsampled,
)
from milan_pipeline.targets.layout import read_identity
from milan_pipeline.targets.reader import open_unit
from milan_pipeline.targets.unit_list import units_of_extent
from milan_pipeline.targets.units import read_marks
from tests.support.remote import noting, watched

KEYS = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.lists(st.text("xyzä/", min_size=1), unique=True, max_size=6),
    max_size=4,
)


@settings(deadline=None, derandomize=True)
@given(KEYS, st.integers(0, 9), st.integers(0, 9))
def test_parts_are_disjoint_and_complete(keys, first, count):
    def chosen(*bounds):
        return {
            (stem, r) for stem, rows in rows_by_hash(keys.items(), *bounds).items() for r in rows
        }

    everything = {(stem, row) for stem, own in keys.items() for row in range(len(own))}
    part, before, after = chosen(first, count), chosen(0, first), chosen(first + count, 99)
    assert part | before | after == everything
    assert len(part) + len(before) + len(after) == len(everything)
    assert len(part) == min(count, max(0, len(everything) - first))


def test_it_depends_on_keys_and_not_on_their_order():
    keys = {"a": ["1", "2", "3", "4"], "b": ["5", "6"]}
    turned = {"b": ["6", "5"], "a": ["4", "3", "2", "1"]}

    def names(of):
        chosen = rows_by_hash(of.items(), 0, 3).items()
        return {(stem, of[stem][row]) for stem, rows in chosen for row in rows}

    assert names(keys) == names(turned)


def test_thinning_keeps_order_and_bound():
    few = torch.arange(60.0).reshape(5, 4, 3)
    assert torch.equal(subsampled(few), few)
    tokens = torch.arange(2.0 * SAMPLE_PATCHES).reshape(4, SAMPLE_PATCHES // 2, 1)
    drawn = subsampled(tokens)
    assert drawn.shape == (4, 1 + SAMPLE_PATCHES // 4, 1)
    assert torch.equal(drawn[:, 0], tokens[:, 0])  # CLS is there
    flat = drawn.flatten().tolist()
    assert len(set(flat)) == len(flat)
    assert flat == sorted(flat)
    assert not torch.equal(drawn[0] + SAMPLE_PATCHES // 2, drawn[1])  # each has its own
    assert torch.equal(drawn, subsampled(tokens))


def opened(url):
    """Return a store's URL, the units of its first view and its codec."""
    record, marks = read_record(f"{url}/extract-targets.json"), read_marks(url, 1)
    assert record is not None
    units = [(unit, marks[unit.mark_path]) for unit in units_of_extent(record["extent"], 1)]
    return url, units, read_store_codec(url, read_identity(url))


def test_no_more_of_a_unit_is_read_than_the_sample_needs(target_store):
    store = opened(watched(target_store))
    with noting("read") as reads:
        stored_sample(*store, count=1)
    (path,) = {request.path for request in reads if "/codes/c/" in request.path}
    read = sum(request.length or 2**40 for request in reads if request.path == path)
    assert read < Path(path).stat().st_size / 2


@pytest.mark.parametrize("is_index", [False, True])
def test_a_damaged_chunk_of_the_sample_is_named(target_store, tmp_path, is_index):
    store = tmp_path / "damaged.zarr"
    shutil.copytree(target_store, store)
    url, units, codec = opened(str(store))
    for unit, mark in units:
        path = store / unit.path / "codes/c/0/0/0"
        data, index = path.read_bytes(), 16 * mark.n + 4
        chunks = bytes(len(data) - index) + data[-index:]
        path.write_bytes(data[:-index] + bytes(index) if is_index else chunks)
    with pytest.raises(DataError, match=r"view-00/.* is damaged .*; delete .*json and run extract"):
        stored_sample(url, units, codec, count=1)


@pytest.mark.parametrize(("first", "count"), [(0, 3), (2, 100)])
def test_a_store_s_sample(target_store, first, count):
    url, units, codec = opened(str(target_store))
    found = stored_sample(url, units, codec, first=first, count=count)
    keys: dict[str, list[str]] = {}
    tokens: dict[str, torch.Tensor] = {}
    for unit, mark in units:
        group = open_unit(url, unit, mark)
        keys[unit.shard.stem] = group.keys()
        tokens[unit.shard.stem] = torch.from_numpy(group.values("codes")).float()
    expected = [
        tokens[stem][row]
        for stem, rows in rows_by_hash(keys.items(), first, count).items()
        for row in rows
    ]
    assert torch.equal(found, torch.stack(expected))
    whole = stored_sample(url, units, codec)
    assert torch.equal(stored_tokens(url, units, codec, StopRequest()), subsampled(whole))


class StoppedWhenAsked(StopRequest):
    """A stop that comes with a number of questions for it."""

    def __init__(self, times):
        super().__init__()
        self.left = times

    def raise_if_asked(self, what_is_kept):
        self.left -= 1
        self.signal_name = "SIGUSR1" if self.left == 0 else None
        super().raise_if_asked(what_is_kept)


def test_a_stop_is_heard_before_each_unit_of_the_sample(target_store):
    """Before the keys of each are read, and before the targets of each."""
    url, units, codec = opened(watched(target_store))
    for times in (1, len(units) + 1):
        with (
            noting("read") as reads,
            pytest.raises(InterruptedRunError, match="SIGUSR1 received; nothing is fitted yet"),
        ):
            stored_tokens(url, units, codec, StoppedWhenAsked(times))
        assert not any("/codes/c/" in request.path for request in reads)
        assert bool(reads) is (times > 1)
