"""Made-up manifests of many shards, as large as real ones, and the indices that they list.

They are written row by row, since a million shards times four views take gigabytes. Tars hold
nothing but the letter x; indices and tars are made when they are read.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.shards.index import index_bytes, index_table
from milan_pipeline.shards.manifest import FORMAT_VERSION, MANIFEST_NAME

SAMPLES = 1000
SAMPLE_BYTES = 110_000
TARGET_BYTES = 13_000
SKIPPED_EVERY = 100
"""One shard in so many has an image that extraction could not decode."""
BROKEN = "broken"
SKIPPED = [{"key": BROKEN, "reason": "truncated"}]
IDENTITY = {
    "teacher": {"grid": [14, 14], "width": 512},
    "preprocessing": {"size": 224},
    "view_policy": {"seed": 0},
    "codec": {"name": "int8"},
}


UnitHash = Callable[[int, int], str]
"""Returns the `unit_sha256` of a view and a shard's number."""


def made_up_hash(view: int, number: int) -> str:
    """Return a hash of no unit."""
    return _hash(f"unit {view} {number}")


def write_manifests(
    root: Path,
    shards: int,
    *,
    views: int = 4,
    identity: Mapping[str, Any] = IDENTITY,
    unit_hash: UnitHash = made_up_hash,
) -> tuple[Path, Path]:
    """Write the manifests of image shards and of their targets; return the two folders."""
    images, targets = root / "images", root / "targets"
    known = content_hash(identity)
    common = {"identity": identity, "identity_hash": known}
    _write(images, "images", {"classes": [], "ignored": []}, map(_image_row, range(shards)))
    units = ((view, number) for view in range(views) for number in range(shards))
    rows = (_target_row(*unit, known, unit_hash(*unit)) for unit in units)
    _write(targets, "targets", common, rows)
    return images, targets


def _write(folder: Path, kind: str, common: Mapping[str, Any], rows: Iterable[Any]) -> None:
    """Write what `Manifest.to_bytes` would; the document's hash is that of its compact form."""
    folder.mkdir(parents=True, exist_ok=True)
    head = {"format_version": FORMAT_VERSION, "kind": kind, "complete": True, **common}
    compact = json.dumps(head | {"shards": []}, sort_keys=True, separators=(",", ":"))
    before, after = compact.split('"shards":[]')
    digest = hashlib.sha256(f'{before}"shards":['.encode())
    with (folder / MANIFEST_NAME).open("w") as file:
        file.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "shards": [')
        for number, row in enumerate(rows):
            packed = msgspec.json.encode(row, order="sorted").decode()
            text = msgspec.json.format(msgspec.json.encode(row).decode(), indent=1)
            text = text.replace("\n", "\n  ")
            file.write(f"{',' if number else ''}\n  {text}")
            digest.update(f"{',' if number else ''}{packed}".encode())
        digest.update(f"]{after}".encode())
        file.write(f'\n ],\n "sha256": "{digest.hexdigest()}"\n}}\n')


@functools.cache
def _table(samples: int, each: int) -> bytes:
    rows = [(f"image-{row:04d}", 512 + row * (each + 1024), each) for row in range(samples)]
    if samples == SAMPLES:
        rows[-1] = (BROKEN, *rows[-1][1:])
    digest = xxhash.xxh3_64_intdigest(b"x" * each)
    return index_bytes(index_table([(*row, digest) for row in rows]))


@functools.cache
def _table_digest(samples: int, each: int) -> "hashlib._Hash":
    return hashlib.sha256(_table(samples, each))


def index_of(name: str) -> bytes:
    """Return the index of a tar; what follows its table, and makes it its own, is not read."""
    stem, *table = _index_parts(name)
    return _table(*table) + stem.encode()


def _index_sha256(name: str) -> str:
    stem, *table = _index_parts(name)
    digest = _table_digest(*table).copy()
    digest.update(stem.encode())
    return digest.hexdigest()


def _index_parts(name: str) -> tuple[str, int, int]:
    """Return the stem of a tar, how many samples its index has, and of how many bytes."""
    stem = name.rpartition("/")[2].removesuffix(".index.npy").removesuffix(".tar")
    is_target = stem.startswith("targets-")
    samples = SAMPLES - (is_target and is_skipped(int(stem[-7:])))
    return stem, samples, TARGET_BYTES if is_target else SAMPLE_BYTES


def is_skipped(number: int) -> bool:
    """Tell whether a shard has an image without targets."""
    return number % SKIPPED_EVERY == 0


def stem_of(number: int) -> str:
    """Return the name of an image shard, without its ending."""
    return f"train-{number:07d}"


def _image_row(number: int) -> dict[str, Any]:
    return _row(f"{stem_of(number)}.tar", SAMPLES, SAMPLE_BYTES, {"skipped": []})


def _target_row(view: int, number: int, identity_hash: str, unit_hash: str) -> dict[str, Any]:
    skipped = SKIPPED if is_skipped(number) else []
    name = f"view-{view:02d}/targets-v{view:02d}-{stem_of(number)}.tar"
    details = {
        "view": view,
        "source": stem_of(number),
        "source_sha256": _hash(f"{stem_of(number)}.tar"),
        "unit_sha256": unit_hash,
        "identity_hash": identity_hash,
        "skipped": skipped,
    }
    return _row(name, SAMPLES - len(skipped), TARGET_BYTES, details)


def _row(name: str, samples: int, each: int, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "samples": samples,
        "bytes": samples * each,
        "sha256": _hash(name),
        "index_sha256": _index_sha256(name),
        "details": details,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
