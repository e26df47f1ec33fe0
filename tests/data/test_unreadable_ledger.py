"""Unreadable images of a run: each once, sorted, known to all processes, kept over restarts."""

import json

import pytest

from milan_pipeline.cluster.world import World
from milan_pipeline.data.unreadable import RunLedger
from milan_pipeline.errors import BadImageError, DataError
from tests.support.processes import run_world


def row(key, shard="x.tar"):
    return {"shard": shard, "key": key, "reason": f"{key} is bad"}


def listed(folder):
    return json.loads((folder / "unreadable-train.json").read_text())


def opened(folder, fraction=0.5):
    return RunLedger(folder, "train", images=10, fraction=fraction)


def test_a_file_only_where_there_is_something_to_tell(tmp_path):
    opened(tmp_path).settle(World())
    assert not list(tmp_path.iterdir())


def test_rows_are_sorted_and_kept_by_the_next_part_of_the_run(tmp_path):
    first = opened(tmp_path)
    first.add([row("b"), row("a"), row("b")])
    first.settle(World())
    assert listed(tmp_path) == [row("a"), row("b")]
    second = opened(tmp_path)
    assert second.count == 2
    second.add([row("a"), row("0"), row("z", "w.tar")])
    second.settle(World())
    assert listed(tmp_path) == [row("z", "w.tar"), row("0"), row("a"), row("b")]


def test_too_many_are_refused_by_name_now_and_by_later_parts(tmp_path):
    ledger = opened(tmp_path)
    ledger.add([row("a"), row("b"), row("c")])
    ledger.settle(World())
    said = r"3 of 10 images .* --max-bad-fraction 0.1 allows: x\.tar:a \(a is bad\), "
    with pytest.raises(DataError, match=said):
        opened(tmp_path, fraction=0.1)


def test_what_cannot_be_decoded_is_noted_and_shown_as_nothing(tmp_path):
    ledger = opened(tmp_path)

    def show(sample):
        if sample["__key__"] == "b":
            raise BadImageError("b is bad")
        return sample["__key__"]

    url = "s3://bucket/folder/x.tar"
    samples = [{"__key__": key, "__url__": url} for key in "abc"]
    assert list(map(ledger.noting(show), samples)) == ["a", None, "c"]
    ledger.settle(World())
    assert listed(tmp_path) == [row("b")]


@pytest.mark.parametrize("text", ["", "[", "{}x", '["a"]', '[{"shard": 1}]', "3"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "unreadable-train.json").write_text(text)
    with pytest.raises(DataError, match=r"unreadable-train\.json is damaged .*; remove it"):
        opened(tmp_path)


def settled(world, folder, fraction):
    ledger = opened(folder, fraction)
    ledger.add([row(f"{world.rank}"), row("both")])
    ledger.settle(world)
    return ledger.count


def test_processes_know_of_each_others_images_and_fail_alike(tmp_path):
    assert run_world(2, settled, tmp_path, 0.5) == [3, 3]
    assert listed(tmp_path) == [row("0"), row("1"), row("both")]
    errors = run_world(2, settled, tmp_path / "other", 0.2)
    assert [type(error) for error in errors] == [DataError, DataError]
    assert all("3 of 10 images are unreadable" in str(error) for error in errors)
