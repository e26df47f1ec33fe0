"""Made-up manifests of many shards, as large as real ones: no tar and no index lies beside them.

They are written row by row, since a million shards times four views take gigabytes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from milan_pipeline.provenance.identity import content_hash
from milan_pipeline.shards.manifest import FORMAT_VERSION, MANIFEST_NAME

SAMPLES = 1000
SAMPLE_BYTES = 110_000
TARGET_BYTES = 13_000
SKIPPED_EVERY = 100
"""One shard in so many has an image that extraction could not decode."""
IDENTITY = {
    "teacher": {"grid": [14, 14], "width": 512},
    "preprocessing": {"size": 224},
    "view_policy": {"seed": 0},
    "codec": {"name": "int8"},
}


def write_manifests(root: Path, shards: int, *, views: int = 4) -> tuple[Path, Path]:
    """Write the manifests of image shards and of their targets; return the two folders."""
    images, targets = root / "images", root / "targets"
    known = content_hash(IDENTITY)
    identity = {"identity": IDENTITY, "identity_hash": known}
    _write(images, "images", {"classes": [], "ignored": []}, map(_image_row, range(shards)))
    units = ((view, number) for view in range(views) for number in range(shards))
    rows = (_target_row(*unit, known) for unit in units)
    _write(targets, "targets", identity, rows)
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
            text = json.dumps(row, indent=1).replace("\n", "\n  ")
            file.write(f"{',' if number else ''}\n  {text}")
            packed = json.dumps(row, sort_keys=True, separators=(",", ":"))
            digest.update(f"{',' if number else ''}{packed}".encode())
        digest.update(f"]{after}".encode())
        file.write(f'\n ],\n "sha256": "{digest.hexdigest()}"\n}}\n')


def _image_row(number: int) -> dict[str, Any]:
    return _row(f"{_stem(number)}.tar", SAMPLES, SAMPLE_BYTES, {"skipped": []})


def _target_row(view: int, number: int, identity_hash: str) -> dict[str, Any]:
    skipped = [] if number % SKIPPED_EVERY else [{"key": "broken", "reason": "truncated"}]
    name = f"view-{view:02d}/targets-v{view:02d}-{_stem(number)}.tar"
    details = {
        "view": view,
        "source": _stem(number),
        "source_sha256": _hash(f"{_stem(number)}.tar"),
        "unit_sha256": _hash(f"unit of {name}"),
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
        "index_sha256": _hash(f"index of {name}"),
        "details": details,
    }


def _stem(number: int) -> str:
    return f"train-{number:07d}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
