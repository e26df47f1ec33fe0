"""Rows in a temporary file."""

import tempfile

import pytest

from milan_pipeline.errors import StorageError
from milan_pipeline.images.tables.spool import Spool


def test_rows_are_read_in_any_order_and_leave_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool()
    for row in (b"one", b"", b"three"):
        spool.append(row)
    assert [spool.read(2), spool.read(0), spool.read(1)] == [b"three", b"one", b""]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match=r"gone cannot be written .* TMPDIR"):
        Spool()
