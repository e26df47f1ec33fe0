"""Which form a source is taken for, and what is asked back where it could be several."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.images.class_tree import warn_of_source
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.find import find_images, table_of
from tests.support.tables import IMAGE, hub_table, save_to_disk, write_img2dataset

IMAGES = [{"bytes": b"\xff\xd8\xff\xe0", "path": "a.jpg"}]


def opened(path, **columns):
    return table_of(path, Columns(**columns), None)


def test_splits_are_asked_back(tmp_path):
    for split in ("test", "train"):
        pq.write_table(hub_table(IMAGES, [0], ["a"]), tmp_path / f"{split}-00000-of-00001.parquet")
    with pytest.raises(ConfigError, match=r"splits test, train; give one, such as '.*/test\*.parq"):
        opened(tmp_path)
    assert opened(tmp_path / "train*.parquet").classes == ["a"]
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(
        ConfigError, match=r"has the splits train, test; give one, such as .*/train"
    ):
        opened(tmp_path)


def test_several_columns_are_asked_back(tmp_path):
    table = hub_table(IMAGES, [0], ["a"], mask=pa.array(IMAGES, IMAGE))
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"2 columns of images \(image, mask\); .*--image-column"):
        opened(tmp_path / "a.parquet")
    assert opened(tmp_path / "a.parquet", image="mask").layout.image == "mask"
    features = {n: {"_type": "ClassLabel", "names": ["a"]} for n in ("fine", "coarse")}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"img": pa.array(IMAGES, IMAGE), "fine": [0], "coarse": [0]})
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"2 columns of classes \(fine, coarse\).*--label-column"):
        opened(tmp_path / "b.parquet")
    assert opened(tmp_path / "b.parquet", label="fine").classes == ["a"]


def test_options_of_tables_are_refused_without_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="options of columns are for tables"):
        find_images(tmp_path, columns=Columns(label="x"))
    (tmp_path / "list.csv").write_text("path\na.jpg\n")
    with pytest.raises(ConfigError, match=r"--masks .* does not go with the table"):
        find_images(tmp_path / "list.csv", columns=Columns(), masks=tmp_path)


def test_what_is_not_there_is_said_before_anything_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, said in (
        ("gone.csv", r"gone\.csv does not exist"),
        ("train-*.parquet", r"no file matches the pattern .*train-\*.parquet"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_images(Path(name), columns=Columns(label="x"))


def test_img2dataset_has_no_other_folder(tmp_path):
    source = write_img2dataset([(b"\xff\xd8\xff\xe0", "One")], tmp_path / "in", form="files")
    with pytest.raises(ConfigError, match=r"--image-folder .* does not go with .*; leave it out"):
        find_images(source, columns=Columns(), folder=tmp_path)


def test_a_tsv_is_a_table_if_it_names_columns(tmp_path):
    (tmp_path / "a, b.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "table.tsv").write_text("Label\tPath\ncat\ta, b.jpg\n")
    (tmp_path / "list.tsv").write_text("a, b.jpg\tcat\n")
    for name in ("table.tsv", "list.tsv"):
        source = find_images(tmp_path / name, columns=Columns())
        assert ([file.name for file in source.files], source.classes) == (["a, b.jpg"], ["cat"])
    assert opened(tmp_path / "list.tsv") is None


@pytest.mark.parametrize("compression", ["zstd", None])
def test_arrow_files_are_read_in_place(tmp_path, compression):
    table = hub_table(IMAGES * 3, [0, 0, 0], ["a"])
    folder = save_to_disk(tmp_path / "in", table)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema, options=options) as out,
    ):
        out.write_table(table.slice(1), max_chunksize=1)
    if compression is None:
        assert [row.size for row in opened(folder).rows()] == [4, 4]
        return
    with pytest.raises(DataError, match="is compressed or damaged"):
        list(opened(folder).rows())


def test_images_of_a_saved_data_set_may_lie_in_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    images = [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": None}]
    folder = save_to_disk(tmp_path / "in", hub_table(images, [0, 0], ["a"]))
    files = find_images(folder, columns=Columns(), folder=tmp_path).files
    assert [(file.size, file.fault) for file in files] == [(4, None), (0, "a row without an image")]


def test_what_is_no_table_inside_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"a.parquet cannot be read as a table"):
        opened(tmp_path / "a.parquet")
    folder = save_to_disk(tmp_path / "in", hub_table(IMAGES, [0], ["a"]))
    (folder / "data-00000-of-00001.arrow").write_bytes(b"no Arrow, but text")
    with pytest.raises(DataError, match=r"arrow cannot be read as a table"):
        opened(folder)


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
def test_arrow_files_without_what_describes_them(tmp_path, name):
    """The cache of `datasets` has no state.json."""
    folder = save_to_disk(tmp_path / "in", hub_table(IMAGES, [0], ["a"]))
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"of `datasets`, but no {name}; .* by `save_to_disk`"):
        opened(folder)


@pytest.mark.parametrize("name", ["00001.tar", "00001.parquet"])
def test_a_shard_that_lost_a_file_is_named(tmp_path, name):
    images = [(b"\xff\xd8\xff\xe0", str(n)) for n in range(4)]
    source = write_img2dataset(images, tmp_path / "in", form="webdataset")
    (source / name).unlink()
    with pytest.raises(DataError, match=f"00001_stats.json, but no {name}; download the shard"):
        opened(source)


def test_shards_whose_download_goes_on_are_left_out_with_a_warning(tmp_path, caplog):
    images = [(b"\xff\xd8\xff\xe0", str(n)) for n in range(4)]
    source = write_img2dataset(images, tmp_path / "in", form="webdataset")
    (source / "00001_stats.json").unlink()
    found = find_images(source, columns=Columns())
    warn_of_source(found, source)
    assert len(found.files) == 2
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert said.startswith("1 shard of ")
    assert said.endswith("since their download has not ended (00001.tar)")


def test_tfrecords_of_img2dataset_are_refused(tmp_path):
    for name in ("00000.tfrecord", "00000_stats.json", "00000.parquet"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"TFRecord files .* --output_format webdataset"):
        opened(tmp_path)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pip install 'milan-pipeline\[tables\]'"):
        opened(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "gone"])
def test_what_cannot_be_reached_is_no_table(tmp_path, name):
    for ending in ("", ".csv", ".parquet"):
        assert opened(tmp_path / f"{name}{ending}") is None
