"""All files below the folders of a folder, on a disk, in a plain store, and in an object store."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.virtual_store import Made, open_bucket
from milan_pipeline import storage
from milan_pipeline.storage import trees


@pytest.fixture(params=["disk", "memory", "objects"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with open_bucket("trees") as bucket:
        yield {
            "disk": str(tmp_path),
            "memory": f"memory://{uuid.uuid4().hex}",
            "objects": bucket.url,
        }[request.param]


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_all_names_come_with_what_is_below_them(
    place: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "FOLDERS_AT_ONCE", at_once)
    wanted = {
        "a": ["1", "b/2"],
        "a b": ["1"],
        "a-b": ["a/b", "zarr.json"],
        "aa": ["1"],
        "b": ["1"],
        "zarr.json": [],
    }
    storage.put_bytes(f"{place}/top/zarr.json", b"{}")
    for name, paths in wanted.items():
        for path in (*paths, *(f".{path}.tmp" for path in paths if "/" not in path)):
            storage.put_bytes(f"{place}/top/{name}/{path}", b"x")
    assert list(storage.list_trees(f"{place}/top")) == list(wanted.items())
    assert list(storage.list_trees(f"{place}/nothing")) == []


def test_an_object_store_is_listed_by_full_pages_and_not_at_once() -> None:
    units = [f"train-{number:07d}" for number in range(2500)]
    with open_bucket("trees") as bucket:
        for unit in units:
            bucket.folders[f"view/{unit}"] = Made(["codes", "zarr.json"], lambda _: b"x")
        found = storage.list_trees(f"{bucket.url}/view")
        assert next(found) == (units[0], ["codes", "zarr.json"])
        assert bucket.requests.lists == 3 + 2  # the names, and the files of a thousand of them
        assert [name for name, _ in found] == units[1:]
        assert bucket.requests.lists == 3 + 2 + 2 + 1
