"""Rows of tables as samples: which files a table may name."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milan_pipeline.images.budget import Skipped
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.find import find_images
from milan_pipeline.shards.image_samples import samples_of
from tests.support.pictures import write_picture
from tests.support.tables import hub_table, save_to_disk


def packed(path, folder=None):
    skipped: list[Skipped] = []
    files = find_images(path, columns=Columns(), folder=folder).files
    keys = [sample.key for sample in samples_of(files, skipped)]
    return keys, [row["reason"] for row in skipped]


@pytest.mark.parametrize("form", ["parquet", "datasets"])
def test_a_table_that_holds_images_names_no_file_elsewhere(tmp_path, form):
    for place in ("private.jpg", "in/near.jpg"):
        write_picture(tmp_path / place, 0)
    paths = ["near.jpg", str(tmp_path / "private.jpg"), "../private.jpg"]
    table = hub_table([{"bytes": None, "path": path} for path in paths], [0, 0, 0], ["a"])
    source = tmp_path / "in" / "a.parquet"
    if form == "parquet":
        pq.write_table(table, source)
    else:
        source = save_to_disk(source.parent, table)
    keys, reasons = packed(source)
    assert keys == ["near"]
    assert ["leads out of" in reason for reason in reasons] == [True, True]
    _, reasons = packed(source, folder=tmp_path)
    assert not any(str(tmp_path / "private.jpg") in reason for reason in reasons)


def test_a_list_of_paths_may_name_any_file(tmp_path):
    write_picture(tmp_path / "a.jpg", 0)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"path": ["../a.jpg"]}), tmp_path / "in" / "a.parquet")
    assert packed(tmp_path / "in" / "a.parquet")[1] == []
