"""A data set of any number of shards behind the virtual store, all of it extracted and packed.

Manifests and records are written to a local folder once. What there is one of for each shard or
unit (marks, indices, tars) is made when it is read, so that a million take no room.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bookkeeping import OBJECTS, write_clip
from benchmarks.scale_data import (
    SAMPLES,
    SKIPPED,
    TARGET_BYTES,
    UnitHash,
    index_of,
    is_skipped,
    stem_of,
    write_manifests,
)
from benchmarks.virtual_store import Bucket, Made, open_bucket
from milan_pipeline.codecs.build import make_codec
from milan_pipeline.provenance.identity import Identity, content_hash
from milan_pipeline.shards.manifest import load_manifest
from milan_pipeline.stages.extract_targets.command import ExtractTargets
from milan_pipeline.stages.extract_targets.plan import record_of, spec_of
from milan_pipeline.stages.pack_targets.command import PackTargets
from milan_pipeline.targets.layout import root_bytes
from milan_pipeline.targets.marks.columns import BriefMark, MarkColumns
from milan_pipeline.targets.marks.known import keep_known
from milan_pipeline.targets.units import Mark, view_name
from milan_pipeline.teacher.teacher import Teacher

VIEWS = 4
IMAGES, PACKED, STORE = "virtual://scale/images", "virtual://scale/targets", "virtual://scale/store"
NUMBER, SHARD_HASH = "train-9999999", "f" * 64  # in the template of a mark


class Tar:
    """A tar of nothing but the letter x."""

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(len(self))
        return b"x" * (stop - start)


class LocalFile:
    """A local file, of which ranges are read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __len__(self) -> int:
        return self._path.stat().st_size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(len(self))
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


@functools.cache
def _template(view: int, identity_hash: str, skipped: bool) -> str:
    mark = Mark(
        shard=f"{NUMBER}.tar",
        sha256=SHARD_HASH,
        identity_hash=identity_hash,
        view=view,
        n=SAMPLES - skipped,
        skipped=SKIPPED if skipped else [],  # type: ignore[arg-type]
        objects=OBJECTS,
    )
    return mark.to_bytes().decode()


def mark_bytes(view: int, number: int, identity_hash: str) -> bytes:
    """Return the mark of a unit."""
    sha256 = hashlib.sha256(f"{stem_of(number)}.tar".encode()).hexdigest()
    text = _template(view, identity_hash, is_skipped(number))
    return text.replace(NUMBER, stem_of(number)).replace(SHARD_HASH, sha256).encode()


def extraction(root: Path) -> ExtractTargets:
    """Return the options of the extraction, with a tiny teacher."""
    teacher = f"local-dir:{root / 'clip'}"
    return ExtractTargets(
        images=IMAGES, out=STORE, teacher=teacher, views=VIEWS, codec="int8", precision="fp32"
    )


def write_world(root: Path, shards: int) -> None:
    """Write what there is one of: manifests, the root of the store, and records."""
    write_clip(root / "clip")
    with open_bucket("scale"):
        spec = spec_of(extraction(root))
        identity = json.loads(
            json.dumps(spec.identity(Teacher.load(spec.teacher), make_codec("int8").parameters()))
        )
    known = content_hash(identity)

    def unit_hash(view: int, number: int) -> str:
        return hashlib.sha256(mark_bytes(view, number, known)).hexdigest()

    images, targets = write_manifests(
        root, shards, views=VIEWS, identity=identity, unit_hash=unit_hash
    )
    (root / "identity.json").write_text(json.dumps(identity))
    (root / "store").mkdir()
    (root / "store" / "zarr.json").write_bytes(root_bytes(identity))
    manifest = load_manifest(str(images), kind="images")
    extracted = record_of(extraction(root), identity, manifest)
    (root / "store" / "extract-targets.json").write_bytes(extracted.to_bytes("done", {}))
    packed = dataclasses.replace(
        extracted,
        stage="pack-targets",
        config=PackTargets(targets=STORE, out=PACKED),
        content=identity,
        extent={"units": VIEWS * shards},
    )
    (targets / "pack-targets.json").write_bytes(packed.to_bytes("done", {}))
    for view in range(VIEWS):
        _keep_marks(root, shards, view, known, unit_hash)


def _keep_marks(root: Path, shards: int, view: int, known: str, unit_hash: UnitHash) -> None:
    """Write down what the marks say, as an extraction leaves it."""
    names = [f"{stem_of(number)}.json" for number in range(shards)]
    marks = [
        BriefMark(
            shard=f"{stem_of(number)}.tar",
            sha256=hashlib.sha256(f"{stem_of(number)}.tar".encode()).hexdigest(),
            identity_hash=known,
            view=view,
            n=SAMPLES - is_skipped(number),
            skipped=SKIPPED if is_skipped(number) else [],  # type: ignore[arg-type]
            source_unit=None,
            unit_sha256=unit_hash(view, number),
        )
        for number in range(shards)
    ]
    stamps = {name: f"{len(name)} {name}" for name in names}
    columns = MarkColumns.of(names, marks)
    keep_known(str(root / "store"), view_name(view), columns, stamps, new=shards)


def _read(folder: Path, name: str) -> Any:
    """Return a file of a folder, or make an index or a tar."""
    if name.endswith(".npy"):
        return index_of(name)
    if name.endswith(".tar"):
        return Tar()
    if not (folder / name).exists():
        raise KeyError(name)
    return LocalFile(folder / name)


def _tar_size(name: str) -> int:
    """Return the bytes of a target shard, as the manifest has them."""
    is_tar = name.endswith(".tar")
    return (SAMPLES - is_skipped(int(name[-11:-4]))) * TARGET_BYTES if is_tar else 0


def _tars_and_indices(stems: list[str]) -> list[str]:
    return [f"{stem}{ending}" for stem in stems for ending in (".index.npy", ".tar")]


@contextlib.contextmanager
def opened_world(
    root: Path, shards: int, *, done: float = 1.0, known_marks: bool = True
) -> Iterator[Bucket]:
    """Serve a world as a bucket.

    Args:
        root: where `write_world` wrote it.
        shards: how many there are.
        done: the share of the units of each view that have a mark.
        known_marks: whether an earlier stage has written down what they say.
    """
    identity: Identity = json.loads((root / "identity.json").read_text())
    known = content_hash(identity)
    stems = [stem_of(number) for number in range(shards)]
    marks = [f"{stem}.json" for stem in stems[: int(done * shards)]]

    with open_bucket("scale") as bucket:
        for name, listed in (("images", stems), ("targets", []), ("store", [])):
            own = [path.name for path in (root / name).iterdir()]
            read = functools.partial(_read, root / name)
            bucket.folders[name] = Made([*own, *_tars_and_indices(listed)], read)
        for view in range(VIEWS):
            at = view_name(view)
            packed = [f"targets-v{view:02d}-{stem}" for stem in stems]
            read = functools.partial(_read, root / "none")
            bucket.folders[f"targets/{at}"] = Made(_tars_and_indices(packed), read, _tar_size)

            def mark(name: str, view: int = view) -> bytes:
                if int(name[-12:-5]) >= len(marks):
                    raise KeyError(name)
                return mark_bytes(view, int(name[-12:-5]), known)

            bucket.folders[f"store/done/{at}"] = Made(marks, mark)
        if known_marks and (root / "store" / "marks").exists():
            read = functools.partial(_read, root / "store" / "marks")
            bucket.folders["store/marks"] = Made([f"view-{v:02d}.bin" for v in range(VIEWS)], read)
        yield bucket
