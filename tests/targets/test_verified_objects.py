"""Objects of known hashes as a read-only Zarr store: parts of them, and which there are."""

from pathlib import Path

import pytest
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from milan_pipeline.targets.verified_objects import VerifiedObjects
from tests.support.stores import ARRAYS, make_block, write


def test_parts_of_an_object_and_writing_refused(tmp_path: Path) -> None:
    unit, mark = write(tmp_path, make_block(3))
    objects = VerifiedObjects(str(tmp_path / unit.path), mark.objects, remedy="")
    prototype = default_buffer_prototype()
    whole = (tmp_path / unit.path / "zarr.json").read_bytes()
    requests = [
        (None, whole),
        (RangeByteRequest(2, 7), whole[2:7]),
        (OffsetByteRequest(5), whole[5:]),
        (SuffixByteRequest(4), whole[-4:]),
        (SuffixByteRequest(0), b""),
    ]
    asked = [("zarr.json", request) for request, _ in requests]
    found = sync(objects.get_partial_values(prototype, asked))
    assert [part.to_bytes() for part in found if part is not None] == [data for _, data in requests]
    assert sync(objects.get("nothing", prototype)) is None
    assert sync(objects.exists("codes/zarr.json"))
    assert not sync(objects.exists("nothing"))
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_group(objects, mode="r").create_group("x")
    with pytest.raises(ValueError, match="read-only"):
        sync(objects.delete("zarr.json"))


def test_listing(tmp_path: Path) -> None:
    unit, mark = write(tmp_path, make_block(3))
    objects = VerifiedObjects(str(tmp_path / unit.path), mark.objects, remedy="")

    async def collected(names) -> list[str]:
        return [name async for name in names]

    assert sync(collected(objects.list())) == list(mark.objects)
    assert sync(collected(objects.list_dir("codes"))) == ["c", "zarr.json"]
    assert sync(collected(objects.list_dir(""))) == [*sorted([*ARRAYS, "key"]), "zarr.json"]
    assert sync(collected(objects.list_prefix("codes/c"))) == ["codes/c/0/0/0"]
