"""What becomes of the rows of a table: names, classes, captions, and what is wrong with them."""

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.find import find_images
from tests.support.tables import hub_table, save_to_disk

JPEG = b"\xff\xd8\xff\xe0"


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    return tmp_path


def where(file):
    return rows_from(file).where(file.row)


def rows_from(file):
    assert file.rows is not None
    return file.rows


def listed(folder, text, **columns):
    (folder / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    source = find_images(folder / "list.csv", columns=Columns(**columns))
    return [(file.name, file.label) for file in source.files], source.classes


@pytest.mark.parametrize("text", [
    "\ufefffile_name,label\r\na.jpg,zebra\r\n\r\n\"b.jpg\",ant\r\nsub/c.jpg,\r\n",
    "id;FilePath;Class\n0;a.jpg;zebra\n1;b.jpg;ant\n2;sub/c.jpg;\n",
    "label\timg\nzebra\ta.jpg\nant\tb.jpg\n\tsub/c.jpg\n",
    'path, label\n a.jpg,  zebra\n"b.jpg", "ant"\nsub/c.jpg, \n',
])  # fmt: skip
def test_a_csv_table_as_programs_write_it(folder, text):
    assert listed(folder, text) == (
        [("a.jpg", 1), ("b.jpg", 0), ("sub/c.jpg", None)],
        ["ant", "zebra"],
    )


def test_numbers_as_pandas_writes_them_beside_missing_ones(folder):
    found, classes = listed(folder, "path,label\na.jpg,3.0\nb.jpg,\nsub/c.jpg,-1\n")
    assert (found, classes) == ([("a.jpg", 3), ("b.jpg", None), ("sub/c.jpg", None)], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na.jpg,0\nb.jpg,cat\n", r"list.csv line 3: 'cat' is no class number"),
        ("path,label\na.jpg,0.5\n", r"line 2: '0.5' is no class number"),
        ("a.jpg,0\nb.jpg,1\n", r"no column called path, .* but a.jpg, 0; .* by --image-column"),
        ("path,label\n", "has no row with an image"),
        ("", "list.csv is empty; give a table whose first line names its columns"),
        ('path,label\na.jpg,0\nb.jpg,"1\nsub/c.jpg,1\n', r"from line 3 on\); .* each quote closed"),
        ('path,label\n"a.jpg,0\n"b.jpg",1\n', r"from line 2 on\); .* each quote closed"),
        ('path,label\na.jpg,"a\tb"\n', "line 2: .* number and no name; take the tab or line"),
        ("path,path,label\na.jpg,b.jpg,0\n", "has 2 columns path; rename all but one"),
        ("path,label\na.jpg,K\xe4tze\n".encode("latin-1"), r"line 2: 'K.*tze' is not UTF-8; save"),
        ("path,text\na.jpg,K\xe4tze\n".encode("latin-1"), r"line 2: 'K.*tze' is not UTF-8; save"),
        (
            "path\na.jpg\nK\xe4.jpg\n".encode("latin-1"),
            r"line 3: no file .* save the table in UTF-8",
        ),
        ("path\nhttp://x.invalid/a.jpg\n", r"is there \(http://x.*; .* download them"),
        ("path\nsub\\c.jpg\n", r"is there .* write / in place of \\ in its paths"),
        ("path\nx/a.jpg\n", r"no file that .* is there \(.*x/a.jpg, …\); .* by --image-folder"),
        ("path,label\n".encode("utf-16"), "is no CSV table in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_used(folder, text, said):
    with pytest.raises((ConfigError, DataError), match=said):
        listed(folder, text)


@pytest.mark.parametrize("label", [[0, 1], {"a": 0}, b"cat"])
def test_a_label_of_several_values_is_no_class(folder, label):
    pq.write_table(pa.table({"path": ["a.jpg"], "label": [label]}), folder / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet row 0: .* is no class; .* by --label-column"):
        find_images(folder / "a.parquet", columns=Columns())
    (file,) = find_images(folder / "a.parquet", columns=Columns(label="none")).files
    assert file.label is None


def test_columns_may_be_named(folder):
    text = "path,photo,kind\nno.jpg,a.jpg,dog\n"
    assert listed(folder, text, image="photo", label="kind") == ([("a.jpg", 0)], ["dog"])
    assert listed(folder, "path,label\na.jpg,0.5\n", label="none") == ([("a.jpg", None)], [])
    with pytest.raises(
        ConfigError, match=r"--label-column sort is no column of .*, which has path"
    ):
        listed(folder, "path\na.jpg\n", label="sort")


def test_bad_rows_stay_with_their_fault(folder):
    (folder / "list.csv").write_text('path\na.jpg\n./a.jpg\nno.jpg\nsub\na,b\n""\nb\0.jpg\n')
    source = find_images(folder / "list.csv", columns=Columns())
    faults = [(where(file), file.fault) for file in source.files]
    assert faults == [
        ("line 2", None),
        ("line 3", "an image that line 2 has, too"),
        ("line 4", "a path without a file"),
        ("line 5", "a folder"),
        ("line 6", "a row of 2 fields, not 1"),
        ("line 8", "a path with a NUL, which no file can have"),
    ]
    assert len({file.key for file in source.files}) == 6


def test_rows_of_parquet_files_count_from_0_in_each(folder):
    for number, names in enumerate((["a.jpg", "no.jpg"], ["b.jpg", None])):
        table = pa.table({"image": names, "text": [["One", "Two"], None]})
        pq.write_table(table, folder / "sub" / f"train-{number}.parquet")
    source = find_images(folder / "sub" / "train-*.parquet", columns=Columns(), folder=folder)
    faults = [(where(file), file.fault) for file in source.files]
    assert [place for place, fault in faults if fault is None] == [
        "row 0 of train-0.parquet", "row 0 of train-1.parquet",
    ]  # fmt: skip
    assert faults[3] == ("row 1 of train-1.parquet", "a row without an image")
    assert [rows_from(file).caption(file.row) for file in source.files] == [b"One\nTwo", b""] * 2


def test_images_without_names_of_their_own_get_the_row(tmp_path):
    images = [
        {"bytes": JPEG + bytes([n]), "path": path}
        for n, path in enumerate(("x.jpg", None, "x.jpg"))
    ]
    source = find_images(
        save_to_disk(tmp_path / "in", hub_table(images, [1, -1, 0], ["a", "b"])), columns=Columns()
    )
    assert [(file.key[:11], file.label) for file in source.files] == [
        ("x", 1), ("000000001", None), ("x-000000002", 0),
    ]  # fmt: skip
    assert [(rows_from(file).image(file.row) or b"")[-1] for file in source.files] == [0, 1, 2]


def test_a_number_that_is_none_is_no_caption(folder):
    pq.write_table(pa.table({"path": ["a.jpg"], "text": [math.nan]}), folder / "a.parquet")
    (file,) = find_images(folder / "a.parquet", columns=Columns()).files
    assert rows_from(file).caption(file.row) == b""


def test_the_fingerprint_is_of_captions_too(folder):
    def fingerprint(text):
        (folder / "list.csv").write_text(f"path,text\na.jpg,\nb.jpg,{text}\n")
        return find_images(folder / "list.csv", columns=Columns()).fingerprint()

    assert fingerprint("One") == fingerprint("One") != fingerprint("Two")
    assert "captions" not in fingerprint("")


def test_one_table_of_several_parts_is_pointed_out(folder, caplog):
    listed(folder, "path,Split\na.jpg,train\nb.jpg,Test\nsub/c.jpg,fold 3\n")
    assert "has images of Test and train in one table, which are packed together" in caplog.text
    pq.write_table(
        pa.table({"path": ["a.jpg", "b.jpg"], "split": ["val", "train"]}), folder / "list.parquet"
    )
    find_images(folder / "list.parquet", columns=Columns())
    assert "has images of train and val in one table" in caplog.text
    caplog.clear()
    listed(folder, "path,set\na.jpg,val\nb.jpg,val\n")
    listed(folder, "path,set\na.jpg,val\nb.jpg,test\n", label="set")
    assert not caplog.records


@pytest.mark.parametrize("name", ["sub/c", "sub/c.png"])
def test_names_with_another_ending_than_the_files_are_told_so(folder, name):
    (folder / "sub/c.jpg").rename(folder / "sub/c.JPG")
    with pytest.raises(ConfigError, match=r"; c\.JPG is there: write the endings of the files"):
        listed(folder, f"path\n{name}\n")


def test_an_image_of_two_classes_says_so(folder):
    (folder / "list.csv").write_text("path,class\na.jpg,x\na.jpg,y\nb.jpg,x\nb.jpg,x\n")
    faults = [file.fault for file in find_images(folder / "list.csv", columns=Columns()).files]
    twice, alike = (
        "an image that line 2 has, too, in another class",
        "an image that line 4 has, too",
    )
    assert faults == [None, twice, None, alike]


def test_a_path_in_a_home_is_found_there(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    (folder / "in").mkdir()
    (folder / "in/list.csv").write_text("path\n~/a.jpg\n../b.jpg\n")
    files = find_images(folder / "in/list.csv", columns=Columns()).files
    assert [
        (file.path.samefile(folder / name), file.fault)
        for file, name in zip(files, ("a.jpg", "b.jpg"), strict=True)
    ] == [(True, None)] * 2
