"""Fuzz what reads strangers' bytes, guided by coverage: `make fuzz`, by hand.

libFuzzer, by atheris, keeps each input that reaches something new in our code, in tarfile or in
Pillow's readers, and changes those further. Checksums are made to fit, or nothing behind them would
ever be reached. It ends at the first input that is a failure, which it leaves in the folder.

    python -m tests.faults.guided tars|images FOLDER [libFuzzer's options]
"""

import binascii
import importlib
import io
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BLOCK = tarfile.BLOCKSIZE
CHECKSUM = slice(148, 156)
MAGIC = slice(257, 262)


class Target(NamedTuple):
    """What is fuzzed.

    Attributes:
        judge: raises where bytes are taken neither as they should be nor refused in a sentence.
        mend: makes checksums fit.
        seeds: sound inputs to begin with, by name.
        most: bytes of an input.
    """

    judge: Callable[[bytes], None]
    mend: Callable[[bytes], bytes]
    seeds: Callable[[], dict[str, bytes]]
    most: int


def members_of(data: bytes) -> list[tuple[str, bytes, int]]:
    """Read a tar as our code does."""
    from milan_pipeline.shards.tar_stream import HashingFile, stream_members

    return list(stream_members(HashingFile(io.BytesIO(data)), "the tar", []))


def judge_tar(data: bytes) -> None:
    """Require that a tar is refused, or is read as tarfile reads it by seeking."""
    from milan_pipeline.errors import DataError

    try:
        found = members_of(data)
    except DataError as error:
        found, reason = None, str(error)
    if found is None:
        assert "\n" not in reason, reason
        return
    for name, member, start in found:
        assert data[start : start + len(member)] == member, name
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {info.name: tar.extractfile(info) for info in tar if info.isreg()}
        assert {name: member for name, member, _ in found} == {
            name: file.read() for name, file in files.items() if file
        }


def mend_tar(data: bytes) -> bytes:
    """Make the checksum of every block fit that has a header's magic word."""
    whole = bytearray(data)
    for start in range(0, len(whole) - BLOCK + 1, BLOCK):
        block = whole[start : start + BLOCK]
        if block[MAGIC] == b"ustar":
            block[CHECKSUM] = b" " * 8  # which a checksum counts itself as
            block[CHECKSUM] = b"%06o\0 " % sum(block)
            whole[start : start + BLOCK] = block
    return bytes(whole)


def tar_seeds() -> dict[str, bytes]:
    """Return a tar of each of tarfile's own formats, with a long name, a link and a folder."""
    found = {}
    for number in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=number) as tar:
            for name, kind in (("a.jpg", b"0"), ("f/" * 60 + "b.png", b"0"), ("l.jpg", b"2")):
                info = tarfile.TarInfo(name)
                info.type, info.linkname, info.size = kind, "a.jpg", 20 * (kind == b"0")
                tar.addfile(info, io.BytesIO(b"twenty bytes, or so!"))
        found[f"format-{number}.tar"] = buffer.getvalue()
    return found


def judge_image(data: bytes) -> None:
    """Require that an image is refused with a reason, or decoded to Pillow's own pixels."""
    from tests.faults.decoding import LIMIT, judge

    found = judge(data, compare=True)
    reason, like = found["reason"], found["as"]
    assert not found["warnings"], found
    assert found["verdict"] != "error", found
    assert "\n" not in reason, found
    assert like in ("none", "equal") or LIMIT in reason, found


def mend_image(data: bytes) -> bytes:
    """Make the checksums of a PNG's whole chunks fit."""
    from milan_pipeline.images.decode import AROUND, PNG_START, chunks

    if not data.startswith(PNG_START):
        return data
    whole = bytearray(data)
    for _, start, length in chunks(data):
        end = start + AROUND + length
        if end <= len(data):
            whole[end - 4 : end] = struct.pack(">I", binascii.crc32(whole[start + 4 : end - 4]))
    return bytes(whole)


def image_seeds() -> dict[str, bytes]:
    """Return a small sound image of each kind."""
    from tests.faults.fuzzed_images import seeds

    return {
        f"{family}-{name}".replace(" ", "-"): data
        for family, images in seeds().items()
        for name, data in images.items()
    }


TARGETS = {
    "tars": Target(judge_tar, mend_tar, tar_seeds, 24 * BLOCK),
    "images": Target(judge_image, mend_image, image_seeds, 12_000),
}


def main(name: str, folder: str, *options: str) -> None:
    """Fuzz until libFuzzer's options say that it is enough, or an input fails."""
    import atheris  # which only this needs

    target, corpus = TARGETS[name], Path(folder) / name
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["milan_pipeline", "PIL", "tarfile"]):
        importlib.reload(tarfile)
        seeds = target.seeds()
        for data in seeds.values():
            target.judge(data)  # imports the rest
    for title, data in seeds.items():
        (corpus / title).write_bytes(data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        mutated = atheris.Mutate(data, most)
        return target.mend(mutated) if seed % 4 else mutated  # some stay wrong

    limits = ("-timeout=5", "-rss_limit_mb=6000", f"-max_len={target.most}")
    words = [sys.argv[0], *limits, f"-artifact_prefix={folder}/", *options, str(corpus)]
    atheris.Setup(words, target.judge, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
