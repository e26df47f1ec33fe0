"""Tar shards: round trips, byte-identical writing, damage of every kind, agreement with others."""

import contextlib
import dataclasses
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from milan_pipeline.errors import DataError, MissingDataError, StorageError
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest
from milan_pipeline.shards.random_access import OPEN_FILES, SampleReader
from milan_pipeline.shards.sequential import index_shard, iterate_shard
from milan_pipeline.shards.writer import MemberPart, Sample, listed_shards, write_shard
from tests.support.pairs import KEY
from tests.support.remote import watched

SAMPLES = st.lists(st.tuples(KEY, st.binary(max_size=1500)), max_size=6, unique_by=lambda s: s[0])
# WebDataset leaves the files that it reads to the garbage collector.
stock_reader = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def listed(folder: Path, shard: Shard) -> Manifest:
    return Manifest(kind="images", folder=str(folder), shards=(shard,))


def a_shard(folder: Path, *, is_shared: bool = False) -> tuple[Manifest, Shard]:
    rows = [(f"k{number}", bytes([65 + number]) * (300 * number + 1)) for number in range(3)]
    samples = [Sample(key, {"jpg": data, "cls": b"1"}) for key, data in rows]
    samples = shared(rows, b"head") if is_shared else samples
    shard = write_shard(str(folder), "x.tar", samples)
    return listed(folder, shard), shard


def read_all(manifest: Manifest, shard: Shard) -> list[bytes]:
    reader = SampleReader()
    try:
        return [
            reader.read(
                manifest.url_of(shard), int(row["offset"]), int(row["length"]), int(row["xxh3"])
            )
            for row in load_index(manifest, shard)
        ]
    finally:
        reader.close()


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_listed_shard_of_another_size_is_to_be_made_again(tmp_path: Path, is_remote) -> None:
    place = watched(tmp_path) if is_remote else str(tmp_path)
    manifest, _ = a_shard(tmp_path)
    manifest.save()
    assert listed_shards(place, "images").keys() == {"x.tar"}
    (tmp_path / "x.tar").write_bytes(b"short")
    assert not listed_shards(place, "images")


@settings(deadline=None, derandomize=True, max_examples=50)
@given(rows=SAMPLES)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows) -> None:
    folder = tmp_path_factory.mktemp("s")
    samples = [Sample(key, {"jpg": data, "cls": b"7"}) for key, data in rows]
    shard = write_shard(str(folder), "x.tar", samples)
    manifest = listed(folder, shard)
    assert shard.samples == len(samples)
    assert shard.bytes == (folder / "x.tar").stat().st_size
    assert list(iterate_shard(manifest, shard)) == samples
    assert keys_of(load_index(manifest, shard)) == [key for key, _ in rows]
    assert read_all(manifest, shard) == [data for _, data in rows]
    again, skipped = index_shard(manifest.url_of(shard), str(folder), "x.tar")
    assert again == shard
    assert skipped == []


def shared(rows: list[tuple[str, bytes]], head: bytes = b"") -> list[Sample]:
    """Put samples into one member, behind a head."""
    ends = [len(head) + sum(len(data) for _, data in rows[: at + 1]) for at in range(len(rows))]
    parts = tuple(
        MemberPart(key, end - len(data), len(data))
        for (key, data), end in zip(rows, ends, strict=True)
    )
    together = head + b"".join(data for _, data in rows)
    return [Sample(rows[0][0], {"bin": together, "txt": b"7"}, parts)] if rows else []


@settings(deadline=None, derandomize=True, max_examples=50)
@given(rows=SAMPLES, more=SAMPLES, head=st.binary(max_size=600))
def test_samples_that_share_a_member(
    tmp_path_factory: pytest.TempPathFactory, rows, more, head
) -> None:
    folder = tmp_path_factory.mktemp("s")
    known = {key for key, _ in rows}
    more = [(key, data) for key, data in more if key not in known]
    blocks = [*shared(rows, head), *shared(more)]
    shard = write_shard(str(folder), "x.tar", blocks)
    manifest = listed(folder, shard)
    assert shard.samples == len(rows) + len(more)
    assert keys_of(load_index(manifest, shard)) == [key for key, _ in [*rows, *more]]
    assert read_all(manifest, shard) == [data for _, data in [*rows, *more]]
    assert list(iterate_shard(manifest, shard)) == [Sample(key, row) for key, row, _ in blocks]


def test_truncation_anywhere_is_noticed(tmp_path: Path) -> None:
    manifest, shard = a_shard(tmp_path)
    path = tmp_path / "x.tar"
    good = path.read_bytes()
    end = len(good.rstrip(b"\0"))
    end += -end % 512
    lengths = {*range(0, len(good), 512), *range(1, len(good), 509), 511, 513, len(good) - 1}
    for length in sorted(lengths):
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match=r"x\.tar"):
            list(iterate_shard(manifest, shard))
        if length < end + 512:  # more zeros than one block are padding, which tar may leave out
            with pytest.raises(DataError, match=r"x\.tar is damaged or truncated"):
                index_shard(str(path), str(tmp_path / "other"), "x.tar")
        else:
            assert index_shard(str(path), str(tmp_path / "other"), "x.tar")[0].samples == 3


@pytest.mark.parametrize("is_shared", [False, True])
def test_any_damaged_byte_is_noticed(tmp_path: Path, is_shared: bool) -> None:
    manifest, shard = a_shard(tmp_path, is_shared=is_shared)
    path = tmp_path / "x.tar"
    good = path.read_bytes()
    for position in range(0, len(good), 37):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(DataError, match=r"x\.tar"):
            list(iterate_shard(manifest, shard))


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damage_is_noticed_by_who_reads_it(tmp_path: Path, damage: str, is_shared: bool) -> None:
    manifest, shard = a_shard(tmp_path, is_shared=is_shared)
    path = tmp_path / "x.tar"
    good = path.read_bytes()
    rows = load_index(manifest, shard)[["offset", "length", "xxh3"]].tolist()
    for number, (offset, length, _) in enumerate(rows):
        at = offset + length - 1
        torn = good[:at] if damage == "cut" else good[:at] + b"!" + good[at + 1 :]
        path.write_bytes(torn)
        with contextlib.closing(SampleReader()) as reader:
            for other, place in enumerate(rows):
                if other == number or (damage == "cut" and other > number):
                    with pytest.raises(DataError, match=r"x\.tar is truncated or damaged"):
                        reader.read(str(path), *place)
                else:
                    assert reader.read(str(path), *place) == bytes([65 + other]) * place[1]


def test_a_damaged_header_does_not_end_a_foreign_tar_early(tmp_path: Path) -> None:
    a_shard(tmp_path)
    path = tmp_path / "x.tar"
    good = path.read_bytes()
    headers = [i for i in range(0, len(good), 512) if good[i + 257 : i + 262] == b"ustar"]
    assert len(headers) == 6
    for header in headers:
        for position in (0, 100, 124, 130, 148, 156):
            damaged = bytearray(good)
            damaged[header + position] ^= 1
            path.write_bytes(bytes(damaged))
            with pytest.raises(DataError, match="is damaged or truncated"):
                index_shard(str(path), str(tmp_path / "other"), "x.tar")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_named_as_such(tmp_path: Path, mode: Any) -> None:
    with tarfile.open(tmp_path / "x.tar", mode) as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    with pytest.raises(DataError, match=r"x\.tar is compressed.*; unpack it first"):
        index_shard(str(tmp_path / "x.tar"), str(tmp_path), "x.tar")


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_member_is_named(tmp_path: Path, form: str) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"picture")
    tar = ["tar", "--sparse", f"--format={form}", "--directory", str(tmp_path), "-cf"]
    subprocess.run([*tar, tmp_path / "x.tar", "a.jpg"], check=True)
    with pytest.raises(DataError, match=r"x\.tar holds 'a\.jpg' as a sparse file"):
        index_shard(str(tmp_path / "x.tar"), str(tmp_path), "x.tar")


@pytest.mark.parametrize("is_shared", [False, True])
def test_duplicate_keys_are_refused(tmp_path: Path, is_shared: bool) -> None:
    rows = [("a", b"1"), ("b", b"2"), ("a", b"3")]
    twice = shared(rows) if is_shared else [Sample(key, {"jpg": data}) for key, data in rows]
    with pytest.raises(DataError, match=r"x\.tar holds the key 'a' twice"):
        write_shard(str(tmp_path), "x.tar", twice)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "names", [("a.jpg", "b.jpg", "a.jpg"), ("a.jpg", "a.jpg"), ("a.jpg", "a.JPG")]
)
def test_duplicates_in_foreign_tars_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    foreign_tar(tmp_path / "x.tar", [(name, b"1") for name in names])
    with pytest.raises(DataError, match=r"x\.tar holds .*'a.* twice"):
        index_shard(str(tmp_path / "x.tar"), str(tmp_path), "x.tar")


def foreign_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@stock_reader
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_foreign_tars_read_as_webdataset_does(tmp_path: Path, form: int) -> None:
    path = tmp_path / "x.tar"
    long = f"{'d' * 90}/{'e' * 90}"
    foreign_tar(
        path,
        [
            (f"{long}.jpg", b"long"),
            ("a.b/c.d.jpg", b"json first" * 60),
            ("a.b/c.jpg", b"c"),
            ("a.b/c.txt", b""),
            ("./d.PNG", b"d"),
            ("noextension", b"x"),
            (".hidden", b"x"),
            ("e.txt", b"no image"),
        ],
        form,
    )
    shard, skipped = index_shard(str(path), str(tmp_path), "x.tar")
    manifest = listed(tmp_path, shard)
    stock = {row["__key__"]: row for row in stock_samples(path)}
    ours = list(iterate_shard(manifest, shard))
    assert [sample.key for sample in ours] == list(stock)
    for key, members, _ in ours:
        assert members == {name: stock[key][name] for name in stock[key] if name[:2] != "__"}
    assert keys_of(load_index(manifest, shard)) == [long, "a.b/c", "./d"]
    assert read_all(manifest, shard) == [b"long", b"c", b"d"]
    assert {line["key"]: line["reason"] for line in skipped} == {
        "noextension": "has no key and ending in its name",
        ".hidden": "has no key and ending in its name",
        "e": "has no image member, only .txt",
    }


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "is a link, which is not followed"),
        (tarfile.LNKTYPE, "is a link, which is not followed"),
        (tarfile.CHRTYPE, "is a device, which is not followed"),
        (tarfile.BLKTYPE, "is a device, which is not followed"),
        (tarfile.FIFOTYPE, "is a pipe, which is not followed"),
        (tarfile.DIRTYPE, None),
    ],
)
def test_what_is_no_file_goes_to_the_ledger(tmp_path: Path, kind: bytes, reason: str) -> None:
    strange = tarfile.TarInfo("strange.jpg")
    strange.type, strange.linkname = kind, "a.jpg"
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for info in (tarfile.TarInfo("a.jpg"), strange, tarfile.TarInfo("b.jpg")):
            tar.addfile(info)
    shard, skipped = index_shard(str(tmp_path / "x.tar"), str(tmp_path), "x.tar")
    assert shard.samples == 2
    assert skipped == ([{"key": "strange.jpg", "reason": reason}] if reason else [])


def test_a_name_that_is_no_text_goes_to_the_ledger(tmp_path: Path) -> None:
    foreign_tar(tmp_path / "x.tar", [("\udcff.jpg", b"1"), ("b.jpg", b"2")])
    shard, skipped = index_shard(str(tmp_path / "x.tar"), str(tmp_path), "x.tar")
    assert shard.samples == 1
    assert skipped == [{"key": "\udcff", "reason": "has a name that is not UTF-8"}]
    manifest = listed(tmp_path, dataclasses.replace(shard, details={"skipped": skipped}))
    manifest.save()
    assert load_manifest(str(tmp_path), kind="images") == manifest


def stock_samples(path: Path, decode: str | None = None) -> Iterator[dict[str, Any]]:
    dataset = webdataset.WebDataset(str(path), shardshuffle=False)
    yield from dataset if decode is None else dataset.decode(decode)


@stock_reader
def test_stock_readers_agree_on_image_shards(image_shards: Path) -> None:
    manifest = load_manifest(str(image_shards), kind="images")
    for shard in manifest.shards:
        path = image_shards / shard.name
        ours = list(iterate_shard(manifest, shard))
        with tarfile.open(path) as tar:
            names = tar.getnames()
            members = [tar.extractfile(name) for name in names]
            content = [member.read() for member in members if member is not None]
        assert names == [f"{key}.{name}" for key, row, _ in ours for name in row]
        assert content == [data for _, row, _ in ours for data in row.values()]
        decoded = list(stock_samples(path, "pil"))
        assert [row["__key__"] for row in decoded] == [sample.key for sample in ours]
        for (_, row, _), stock in zip(ours, decoded, strict=True):
            with Image.open(io.BytesIO(row["jpg"])) as image:
                assert np.array_equal(np.asarray(stock["jpg"]), np.asarray(image.convert("RGB")))
            assert stock["cls"] == int(row["cls"])


def test_a_range_that_is_not_what_the_index_says(tmp_path: Path) -> None:
    manifest, shard = a_shard(tmp_path)
    reader = SampleReader()
    url = manifest.url_of(shard)
    row = load_index(manifest, shard)[1]
    place = int(row["offset"]), int(row["length"]), int(row["xxh3"])
    for offset, length, digest in (
        (place[0] + 1, place[1], place[2]),
        (place[0], place[1] - 1, place[2]),
        (shard.bytes - 3, place[1], place[2]),
        (place[0], place[1], place[2] ^ 1),
    ):
        with pytest.raises(DataError, match=r"x\.tar is truncated .* delete it and run the stage"):
            reader.read(url, offset, length, digest)
    assert reader.read(url, *place) == b"B" * 301
    reader.close()


def test_remote_shards(tmp_path: Path) -> None:
    shard = write_shard("memory://shards", "x.tar", [Sample("a", {"jpg": b"1234"})])
    manifest = dataclasses.replace(listed(tmp_path, shard), folder="memory://shards")
    assert read_all(manifest, shard) == [b"1234"]
    assert list(iterate_shard(manifest, shard)) == [Sample("a", {"jpg": b"1234"})]


def test_the_number_of_open_files_is_bounded(tmp_path: Path) -> None:
    def open_files() -> int:
        descriptors = Path("/proc/self/fd").iterdir()
        return sum(tmp_path in place.resolve().parents for place in descriptors)

    reader = SampleReader()
    for number in range(OPEN_FILES + 3):
        path = tmp_path / f"{number}"
        path.write_bytes(b"x")
        assert reader.read(str(path), 0, 1, xxhash.xxh3_64_intdigest(b"x")) == b"x"
    assert open_files() == OPEN_FILES
    assert reader.read(str(tmp_path / "0"), 0, 1, xxhash.xxh3_64_intdigest(b"x")) == b"x"
    assert open_files() == OPEN_FILES
    reader.close()
    assert open_files() == 0


def test_an_unreadable_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="nowhere"):
        SampleReader().read(str(tmp_path / "nowhere"), 0, 1, 0)
    with pytest.raises(StorageError, match=str(tmp_path)):
        SampleReader().read(str(tmp_path), 0, 1, 0)
