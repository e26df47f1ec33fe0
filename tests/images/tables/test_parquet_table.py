"""Images in Parquet files, which are copied as they are asked for."""

import pyarrow.parquet as pq
import pytest

from milan_pipeline.errors import StorageError
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.parquet_table import ParquetTable
from milan_pipeline.images.tables.spool import Spool
from tests.support.tables import hub_table


def test_a_copy_that_failed_midway_is_made_again(tmp_path, monkeypatch):
    images = [{"bytes": b"image %d" % n, "path": None} for n in range(6)]
    path = tmp_path / "a.parquet"
    pq.write_table(hub_table(images, [0] * 6, ["a"]), path, row_group_size=3)
    table = ParquetTable([path], path, Columns(), tmp_path)
    list(table.rows())
    append = Spool.append

    def full(spool: Spool, data: bytes) -> None:
        if data == b"image 1":
            raise StorageError("the disk is full")
        append(spool, data)

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "append", full)
        with pytest.raises(StorageError):
            table.image(0)
        assert table.image(4) == b"image 4"
    assert [table.image(n) for n in range(6)] == [image["bytes"] for image in images]
