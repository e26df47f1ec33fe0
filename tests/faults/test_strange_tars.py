"""Tars of strangers: indexed as far as they hold images, or refused; no member becomes a path."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milan_pipeline.images.formats import IMAGE_EXTENSIONS
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.sequential import MEMBER_NAME, index_shard
from tests.faults.campaign import COUNTS, attempt, chance, scaled
from tests.faults.consumers import indexed
from tests.faults.sentinel import plant, untouched
from tests.support.cli import run_cli

PICTURE = b"\xff\xd8\xff a picture, as far as an index cares"
KIND, DRAWN, DAMAGED = "tar: of a stranger", "tar: drawn members", "tar: damaged headers"
Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    data = PICTURE if kind == tarfile.REGTYPE else b""
    info.size = len(data)
    return info, data


# What comes with one good sample, and how many samples and lines of the ledger the index then has;
# None where the tar must be refused.
TARS: dict[str, tuple[list[Member], int | None]] = {
    "a path that leads out": ([member("../../outside/precious.jpg")], 2),
    "an absolute path": ([member("{root}/outside/precious.jpg")], 2),
    "a link to a file": ([member("link.jpg", tarfile.SYMTYPE, "{root}/outside/precious.jpg")], 2),
    "a link to a folder, and a file behind it": (
        [member("out", tarfile.SYMTYPE, "../outside"), member("out/precious.jpg")],
        3,
    ),
    "a hard link": ([member("hard.jpg", tarfile.LNKTYPE, "good.jpg")], 2),
    "a device": ([member("device.jpg", tarfile.CHRTYPE)], 2),
    "a block device": ([member("device.jpg", tarfile.BLKTYPE)], 2),
    "a pipe": ([member("fifo.jpg", tarfile.FIFOTYPE)], 2),
    "a folder": ([member("folder.jpg", tarfile.DIRTYPE)], 1),
    "a name that is not UTF-8": ([member("bad\udcff.jpg")], 2),
    "dots in a key": ([member("one.two.jpg")], 2),
    "a name of 10,000 characters": ([member("n" * 10_000 + ".jpg")], 2),
    "an ending of 10,000 characters": ([member("n." + "e" * 10_000)], 2),
    "an empty key": ([member(".jpg")], 2),
    "no ending": ([member("README")], 2),
    "a name with a line break": ([member("two\nlines.jpg")], 2),
    "a thousand long names of one member": ([member("x", tarfile.GNUTYPE_LONGNAME)] * 1000, None),
    "a thousand pax headers of one member": ([member("x", tarfile.XHDTYPE)] * 1000, None),
    "a key twice": ([member("good.jpg")], None),
    "a key twice, apart": ([member("other.jpg"), member("good.jpg")], None),
}


def bytes_of_tar(members: list[Member], root: Path | str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info, data in [member("good.jpg"), *members]:
            info.name = info.name.replace("{root}", str(root))
            info.linkname = info.linkname.replace("{root}", str(root))
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("case", TARS)
def test_tars_of_strangers(case: str, tmp_path: Path) -> None:
    """By the library and by the command; but for the output folder, nothing changes."""
    members, samples = TARS[case]
    tar, out = tmp_path / "in/strange.tar", tmp_path / "out"
    tar.parent.mkdir()
    tar.write_bytes(bytes_of_tar(members, tmp_path))
    plant(tmp_path / "outside")
    with untouched(tmp_path, but=(out,)):
        attempt(
            KIND, case, lambda: indexed(tar, out)[0], names=["strange.tar"], expected=samples
        )  # fmt: skip
        run_cli("index", tar, "--out", out, code=samples is None)
    COUNTS[KIND].require_none_failed()


TEXT = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    [
        "good.jpg",
        "../x.jpg",
        "/x.jpg",
        "a.jpg/../b.jpg",
        "..",
        ".",
        "a/",
        "x" * 300 + ".png",
        "\0.jpg",
    ]
)
TYPES = st.sampled_from([*b"0000701234567LKxgSDV"]).map(lambda number: bytes([number]))
WITH_DATA = b"07LKxgSDV"
DRAWN_MEMBERS = st.lists(st.tuples(TEXT, TYPES, TEXT, st.binary(max_size=700)), max_size=5)


@settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=scaled(2000, 150),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=DRAWN_MEMBERS)
def test_members_of_any_name_and_type(rows: list[Any], tmp_path: Path) -> None:
    """Types that change what follows (long names, headers of pax, sparse files) come, too."""
    members = []
    for name, kind, link, data in rows:
        info = tarfile.TarInfo(name or "x")
        info.type, info.linkname = kind, link
        info.size = len(data) if kind in WITH_DATA else 0
        members.append((info, data[: info.size]))
    try:
        whole = bytes_of_tar(members)
    except (ValueError, tarfile.TarError):  # names that tarfile itself cannot write
        return
    read_strange(DRAWN, whole, tmp_path)


def test_headers_that_are_damaged_but_add_up(tmp_path: Path) -> None:
    """Any byte of a header becomes another, and its checksum is made to fit."""
    good, random = (
        bytes_of_tar([member("a.jpg"), member("b.png"), member("b.txt")]),
        chance(DAMAGED),
    )
    for _ in range(scaled(2000, 200)):
        data = bytearray(good)
        start = 1024 * random.randrange(4)
        data[start + random.randrange(512)] = random.choice(b"\0\x01 /.7L9xgS\xff\x80")
        data[start + 148 : start + 156] = b" " * 8  # which a checksum counts itself as
        data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
        read_strange(DAMAGED, bytes(data), tmp_path)
    COUNTS[DAMAGED].require_none_failed()


@pytest.mark.parametrize("size", [10**5, 2**40, 2**62, 2**70])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.XHDTYPE])
def test_sizes_beyond_the_tar(size: int, kind: bytes, tmp_path: Path) -> None:
    """They are refused at once: tarfile by itself would read on at the end, for years."""
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = kind, size
    read_strange(DAMAGED, info.tobuf(tarfile.GNU_FORMAT) + PICTURE, tmp_path)
    pax = tarfile.TarInfo("pax")
    record = b"%d path=b.jpg\n" % size
    pax.type, pax.size = tarfile.XHDTYPE, len(record)
    members = bytes_of_tar([(pax, record)])
    read_strange(DAMAGED, members, tmp_path)


def test_a_sparse_map_that_breaks_off(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # the map goes on in a block that does not come
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    read_strange(DAMAGED, bytes(header), tmp_path)


def read_strange(kind: str, data: bytes, folder: Path) -> None:
    """Index a tar, which must either be refused or give the images that tarfile finds in it."""
    tar, out = folder / "strange.tar", folder / "out"
    tar.write_bytes(data)

    def consume() -> bool:
        shard, _ = index_shard(str(tar), str(out), tar.name)
        table = load_index(Manifest(kind="images", folder=str(out), shards=(shard,)), shard)
        rows = zip(keys_of(table), table["offset"].tolist(), table["length"].tolist(), strict=True)
        found = {key: data[start : start + length] for key, start, length in rows}
        return found.items() <= members_by_key(data).items()

    with untouched(folder, but=(out,)):
        attempt(kind, repr(data[:40]), consume, names=["strange.tar"], expected=True)
    COUNTS[kind].require_none_failed()


def members_by_key(data: bytes) -> dict[str, bytes]:
    """Read a tar's images as tarfile has them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {}
        for info in tar:
            match = MEMBER_NAME.fullmatch(info.name)
            file = tar.extractfile(info) if info.isreg() else None
            if file and match and match[2].lower() in IMAGE_EXTENSIONS:
                found[match[1]] = file.read()
        return found
