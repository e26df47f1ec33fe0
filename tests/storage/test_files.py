"""Reading and writing through fsspec: atomic, clear about what failed, no programs behind URLs."""

import re
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from milan_pipeline import storage
from milan_pipeline.errors import ConfigError, DataError, MissingDataError, StorageError


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path)
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket"


def test_put_read_list(place: str) -> None:
    url = storage.join(place, "a", "b.bin")
    storage.put_bytes(url, b"0123456789")
    assert storage.read_bytes(url) == b"0123456789"
    assert storage.read_bytes(url, 3, 4) == b"3456"
    assert storage.read_bytes(url, 10, 0) == b""
    with storage.open_read(url) as stream:
        assert stream.read() == b"0123456789"
    assert storage.exists(url)
    assert storage.list_names(storage.join(place, "a")) == ["b.bin"]
    assert storage.list_names(storage.join(place, "nothing")) == []


def test_put_replaces(place: str) -> None:
    url = storage.join(place, "x")
    storage.put_bytes(url, b"longer than the next one")
    storage.put_bytes(url, b"short")
    assert storage.read_bytes(url) == b"short"


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    url = str(tmp_path / "x")
    storage.put_bytes(url, b"old")
    with storage.open_read(url) as stream:
        storage.put_bytes(url, b"new")
        assert stream.read() == b"old"
    assert storage.read_bytes(url) == b"new"


def test_a_failed_block_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    url = str(tmp_path / "x")
    storage.put_bytes(url, b"old")

    def write_half() -> None:
        with storage.atomic_writer(url) as stream:
            stream.write(b"half")
            raise DataError("the source is bad")

    with pytest.raises(DataError, match="the source is bad"):
        write_half()
    assert storage.read_bytes(url) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_an_error_of_the_block_is_not_called_a_write_error(tmp_path: Path) -> None:
    def write() -> None:
        with storage.atomic_writer(str(tmp_path / "x")):
            raise StorageError("source.jpg cannot be read")

    with pytest.raises(StorageError, match=r"^source\.jpg cannot be read$"):
        write()


def test_a_local_path_may_have_two_colons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("./a::b/x", f"{tmp_path}/a::b/y"):
        storage.put_bytes(url, b"1")
        assert storage.read_bytes(url) == b"1"
    assert storage.list_names("./a::b") == ["x", "y"]
    with pytest.raises(StorageError, match=r"'a::b' is refused: .* give a path: \./a::b if this"):
        storage.exists("a::b")


def test_a_signature_is_no_part_of_a_name() -> None:
    url = "https://host/a/x-0.tar?credential=me/2026/s3&signature=a?b/c"
    assert (storage.basename(url), storage.folder_of(url)) == ("x-0.tar", "https://host/a")
    assert storage.basename("s3://b/what?.tar") == "what?.tar"


def test_a_full_disk_names_the_file() -> None:
    with pytest.raises(StorageError, match=r"/dev/full/x cannot be written"):
        storage.put_bytes("/dev/full/x", b"1")


def test_listing_leaves_temporaries_out(tmp_path: Path) -> None:
    for name in (".x.0123.tmp", ".hidden", "a.tmp", "b"):
        (tmp_path / name).write_bytes(b"")
    assert storage.list_names(str(tmp_path)) == [".hidden", "a.tmp", "b"]


@pytest.mark.parametrize("read", [storage.read_bytes, storage.open_read])
def test_missing_and_unreadable_files_are_named(tmp_path: Path, read) -> None:
    with pytest.raises(MissingDataError, match="nowhere does not exist"):
        read(str(tmp_path / "nowhere"))
    with pytest.raises(StorageError, match="cannot be read"):
        read(str(tmp_path))


def test_a_range_beyond_the_end_is_refused(place: str) -> None:
    url = storage.join(place, "x")
    storage.put_bytes(url, b"0123")
    with pytest.raises(StorageError, match="ends 2 bytes early"):
        storage.read_bytes(url, 2, 4)


@pytest.mark.parametrize(
    "url", ["pipe:cat x", "ssh://host/x", "reference://x", "git://x", "simplecache::s3://b/x"]
)
def test_urls_that_run_programs_are_refused(url: str) -> None:
    with pytest.raises(StorageError, match="is refused"):
        storage.read_bytes(url)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(StorageError, match="cannot be opened"):
        storage.read_bytes("nosuch://x")


def test_expand() -> None:
    assert storage.expand(("a-{0..1}.tar", "{x,y}")) == ["a-0.tar", "a-1.tar", "x", "y"]
    with pytest.raises(ConfigError, match="unbalanced"):
        storage.expand(("a-{0..1.tar",))


PART = st.text("abc.-_", min_size=1, max_size=5)


@settings(deadline=None, derandomize=True)
@given(st.sampled_from(["/", "/data", "data/", ".", "s3://bucket", "s3://bucket/x/"]), PART)
def test_folder_and_name_put_together_again(base: str, name: str) -> None:
    url = storage.join(base, name)
    assert storage.basename(url) == name
    assert storage.join(storage.folder_of(url), name) == url
    assert not url.startswith("//")


def test_folder_of_a_bare_name_is_here() -> None:
    assert storage.folder_of("x.tar") == "."


def test_free_bytes_looks_at_the_nearest_existing_folder(tmp_path: Path) -> None:
    free = storage.free_bytes(str(tmp_path / "not" / "there"))
    assert free is not None
    assert free > 0
    assert storage.free_bytes("memory://x") is None
    assert storage.free_text("memory://x") == "unknown"
    assert re.fullmatch(r"\d+ \([\d.]+ .B\)", storage.free_text(str(tmp_path)))


def test_local_path(tmp_path: Path) -> None:
    assert storage.local_path(f"file://{tmp_path}/x") == tmp_path / "x"
    assert storage.local_path("memory://x") is None


@pytest.mark.parametrize("folder", ["bra{ce", "bra{1,2}"])
def test_a_file_that_has_braces_in_its_name_is_meant_as_it_stands(
    tmp_path: Path, folder: str
) -> None:
    there = str(tmp_path / folder / "x.tar")
    storage.put_bytes(there, b"1")
    assert storage.expand((there,)) == [there]
    assert storage.expand((str(tmp_path / "y{1,2}"),)) == [f"{tmp_path}/y1", f"{tmp_path}/y2"]


def test_the_remedy_for_a_brace_works() -> None:
    with pytest.raises(ConfigError, match=r"write \\\{ for one, and \\\} for"):
        storage.expand(("s3://bucket/bra{ce/x.tar",))
    assert storage.expand((r"s3://bucket/bra\{ce/{1,2}.tar",)) == [
        "s3://bucket/bra{ce/1.tar",
        "s3://bucket/bra{ce/2.tar",
    ]


def test_a_tree_is_listed_with_what_lies_deep(place: str) -> None:
    for path in ("a", "b/c", "b/d/e"):
        storage.put_bytes(storage.join(place, "top", path), b"1")
    assert storage.list_tree(storage.join(place, "top")) == ["a", "b/c", "b/d/e"]
    assert storage.list_tree(storage.join(place, "nothing")) == []
