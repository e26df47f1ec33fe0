"""Temporary files of killed writers are found and deleted; nothing else is."""

import os
import time
from pathlib import Path

import pytest

from milan_pipeline import storage
from milan_pipeline.storage.leftovers import temporary_name

LONG_AGO = time.time() - 3600


def left_by_a_kill(folder: Path) -> Path:
    """Write as a writer that is killed in the middle does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / temporary_name()
    path.write_bytes(b"half")
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def test_what_a_writer_leaves_is_found_wherever_outputs_have_files(tmp_path: Path) -> None:
    places = (tmp_path, tmp_path / "view-00" / "x" / "codes" / "c", tmp_path / "done" / "view-00")
    found = {left_by_a_kill(place) for place in places}
    assert set(storage.leftovers(str(tmp_path))) == found
    storage.remove_leftovers(str(tmp_path), before=time.time())
    assert storage.leftovers(str(tmp_path)) == []


def test_what_is_still_written_to_stays(tmp_path: Path) -> None:
    started = time.time()
    with storage.atomic_writer(str(tmp_path / "x")) as stream:
        stream.write(b"half")
        stream.flush()
        storage.remove_leftovers(str(tmp_path), before=started - 1)
    assert storage.read_bytes(str(tmp_path / "x")) == b"half"


@pytest.mark.parametrize("name", [".tmp", ".notes.tmp", "x.tmp", f".{'0' * 31}g.tmp"])
def test_files_of_others_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    os.utime(tmp_path / name, (LONG_AGO, LONG_AGO))
    left_by_a_kill(tmp_path / "another folder")
    storage.remove_leftovers(str(tmp_path), before=time.time())
    assert (tmp_path / name).exists()
    assert list((tmp_path / "another folder").iterdir())


def test_an_object_store_has_none() -> None:
    storage.put_bytes(f"memory://left/{temporary_name()}", b"x")
    assert storage.leftovers("memory://left") == []
