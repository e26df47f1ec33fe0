"""Tables of text: JSON lines, what Excel writes, and columns that are no paths."""

import base64
from pathlib import Path

import pytest

from milan_pipeline.errors import ConfigError, DataError
from milan_pipeline.images.class_tree import warn_of_source
from milan_pipeline.images.sources import Source
from milan_pipeline.images.tables.columns import Columns
from milan_pipeline.images.tables.find import find_images

JPEG = b"\xff\xd8\xff\xe0" + bytes(200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    return tmp_path


def found(folder: Path, name: str, text: str) -> Source:
    (folder / name).write_text(text)
    return find_images(folder / name, columns=Columns())


def test_json_lines_are_a_table(folder: Path) -> None:
    source = found(
        folder,
        "metadata.jsonl",
        '\ufeff{"file_name": "a b.jpg", "text": "one \\ud83d"}\n\n'
        '{"label": "cat", "file_name": "c.jpg", "more": [1]}\n{"label": "cat"}\n'
        '{"file_name": 3}\n',
    )
    assert source.classes == ["cat"]
    labelled = [(file.name, file.label) for file in source.files]
    assert labelled[:2] == [("a b.jpg", None), ("c.jpg", 0)]
    rows = source.files.columns.rows
    assert rows is not None
    assert [rows.caption(row) for row in (0, 1)] == [b"one ?", b""]
    assert [rows.where(row) for row in range(4)] == ["line 1", "line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; give a table with a JSON object in each line"),
        ('["a b.jpg"]\n', "line 1: .* is no JSON object; write one a line"),
        ('{"file_name": "c.jpg"}\n{"file_na', "line 2: .* is no JSON object"),
        ('{"name": "c.jpg"}\n', "has no column called path, .* but name"),
    ],
)
def test_what_is_no_table_of_json_lines(folder: Path, text: str, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        found(folder, "list.jsonl", text)


def test_excel_may_name_the_separator(folder: Path) -> None:
    source = found(folder, "list.csv", "\ufeffsep=;\npath;label\na b.jpg;x\ngone.jpg;y\n")
    assert source.classes == ["x", "y"]
    assert next(file.name for file in source.files) == "a b.jpg"
    rows = source.files.columns.rows
    assert rows is not None
    assert rows.where(1) == "line 4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("url,text\nhttp://x/0.jpg,x\n", "download the images of url, with img2dataset"),
        ("path\nC:\\pics\\a.jpg\n", "paths of a Windows machine: write them relative"),
        ("image\n" + base64.b64encode(JPEG).decode(), "base64 text: decode it into bytes"),
    ],
)
def test_columns_that_are_no_paths_have_remedies_of_their_own(folder, text, said) -> None:
    with pytest.raises(ConfigError, match=said):
        found(folder, "list.csv", text)


def test_an_image_folder_that_is_not_there_is_told(folder: Path) -> None:
    (folder / "list.csv").write_text("path\nc.jpg\n")
    with pytest.raises(ConfigError, match="gone is no folder: correct --image-folder"):
        find_images(folder / "list.csv", columns=Columns(), folder=folder / "gone")


def test_a_table_beside_the_images_is_pointed_out(folder: Path, caplog) -> None:
    (folder / "metadata.csv").write_text("file_name,label\nc.jpg,cat\n")
    assert len(find_images(folder, columns=Columns()).files) == 2
    assert f"{folder}/metadata.csv is not read; to pack the classes" in caplog.text


def test_a_class_that_is_called_like_no_value_is_pointed_out(folder: Path, caplog) -> None:
    source = found(folder, "list.csv", "path,label\na b.jpg,NaN\nc.jpg,cat\n")
    warn_of_source(source, folder)
    assert "NaN is a class of" in caplog.text
    assert "leave the field empty" in caplog.text
