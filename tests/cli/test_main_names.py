"""Names of files that are not UTF-8, as disks of older systems have them."""

import io
import os
import sys
from pathlib import Path

import pytest

from tests.support.cli import run_cli
from tests.support.pictures import write_picture

OLD = os.fsdecode(b"\xe9")
"""An é of Latin-1."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of two classes, one of such a name, which lie below a good name."""
    for number, name in enumerate((f"ant/{OLD}.jpg", f"{OLD}/b.jpg")):
        write_picture(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


def test_a_page_and_a_terminal_show_such_a_class_by_its_bytes(photos, tmp_path, monkeypatch):
    shards, page, terminal = tmp_path / "shards", tmp_path / "page.html", io.BytesIO()
    run_cli("pack-images", photos, shards)
    strict = io.TextIOWrapper(terminal, encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", strict)
    run_cli("inspect", shards, "--html", page)
    assert rb"ant, \udce9" in terminal.getvalue()
    assert rb"\udce9" in page.read_bytes()


def test_a_terminal_that_lacks_a_character_gets_another(photos, tmp_path, monkeypatch):
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding="latin-1"))
    run_cli("pack-images", photos, tmp_path / "\N{GREEK SMALL LETTER PI}")
    sys.stdout.flush()
    assert rb"\u03c0: 1 shard" in terminal.getvalue()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("pack-images", f"in/{OLD}", "out"), "SOURCE in/"),
        (("index", "a.tar", f"{OLD}.tar"), "URLS "),
        (("pretrain", "--images", "in", "--targets", "in", "--out", OLD), "--out "),
    ],
)
def test_an_option_of_such_a_name_is_refused(words, named, capsys):
    run_cli(*words, code=2)
    error = capsys.readouterr().err
    assert error.startswith(rf"Error: {named}\udce9")
    assert "is not UTF-8; rename the file or folder, or give a link to it" in error


def test_where_the_locale_hides_utf8_it_is_to_be_set(monkeypatch, capsys):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    run_cli("index", f"{OLD}.tar", code=2)
    assert (
        "set PYTHONUTF8=1, as by this locale names are taken for ascii" in capsys.readouterr().err
    )


def test_a_link_to_such_a_folder_is_taken(photos, tmp_path):
    old = photos.rename(tmp_path / OLD)
    (tmp_path / "link").symlink_to(old)
    run_cli("pack-images", tmp_path / "link", tmp_path / "shards")
