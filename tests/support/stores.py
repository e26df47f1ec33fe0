"""A target store of any size without a teacher, and the image shards it would be of.

Pictures are a few, repeated; targets are their patches' mean colours, turned by a fixed matrix,
plus noise of the row; priors prefer patches that differ from the picture's mean.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from zarr.storage import MemoryStore

from milan_pipeline.codecs.build import make_codec
from milan_pipeline.codecs.interface import Codec, encode_prior
from milan_pipeline.codecs.registry import parse_codec
from milan_pipeline.images.budget import Skipped
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb, digest
from milan_pipeline.images.views import Box
from milan_pipeline.provenance.identity import build_identity, content_hash
from milan_pipeline.provenance.record import record_bytes, utc_text
from milan_pipeline.shards.index import keys_of, load_index
from milan_pipeline.shards.manifest import Manifest, Shard, load_manifest
from milan_pipeline.shards.sequential import read_rows
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.layout import UnitBlock, create_root
from milan_pipeline.targets.reader import StoredUnit
from milan_pipeline.targets.shard_records import TARGET_EXTENSION, layout_of
from milan_pipeline.targets.unit_list import extent_of, list_units
from milan_pipeline.targets.units import Mark, Unit
from milan_pipeline.targets.writer import UnitWriter
from tests.support.pictures import write_picture

ARRAYS = ("codes", "prior", "box", "flip", "size", "digest")
SHARDS = tuple(
    Shard(name=f"x-{number}.tar", samples=2, bytes=1, sha256=f"{number}", index_sha256="")
    for number in range(3)
)
UNITS = list_units(Manifest(kind="images", folder=".", shards=SHARDS), 2)
PICTURES = 24
BLOCK = 256
HEIGHT, WIDTH = 96, 120


class MadeStore(NamedTuple):
    """Where a made-up store and its images lie."""

    store: str
    images: str


def make_store(
    folder: Path,
    *,
    images: int,
    side: int = 14,
    width: int = 64,
    codec: Codec | None = None,
    per_shard: int = 1000,
    key: Callable[[int], str] = "image-{:06d}".format,
    skipped: tuple[Skipped, ...] = (),
) -> MadeStore:
    """Write the store and its image shards by the library's own writers.

    Args:
        folder: they become `images` and `made.zarr` in it.
        images: how many, a target each.
        side: patches of a side.
        width: of the targets.
        codec: that stores them; None is int8.
        per_shard: images of a shard.
        key: of an image, by its number.
        skipped: the ledger of the first unit.
    """
    codec = codec or make_codec("int8")
    pictures = [_picture(folder / "pictures", number) for number in range(PICTURES)]
    numbers = [range(at, min(at + per_shard, images)) for at in range(0, images, per_shard)]
    shards = tuple(
        write_shard(
            str(folder / "images"),
            f"made-{at:06d}.tar",
            (Sample(key(number), {"jpg": pictures[number % PICTURES]}) for number in part),
        )
        for at, part in enumerate(numbers)
    )
    manifest = Manifest(kind="images", folder=str(folder / "images"), shards=shards)
    manifest.save()
    identity = build_identity(
        teacher={
            "name": "made-up",
            "grid": [side, side],
            "width": width,
            "prior": "cls",
            "precision": "fp32",
        },
        preprocessing={"size": side * 4},
        view_policy={"name": "whole"},
        codec=codec.parameters(),
    )
    url = str(folder / "made.zarr")
    create_root(url, identity)
    known = [_seen(data, side, width) for data in pictures]
    for unit, part in zip(list_units(manifest, 1), numbers, strict=True):
        shape = codec.spec.code_shape(1 + side**2, width)
        writer = UnitWriter(
            url, unit, identity_hash=content_hash(identity), codec=codec, shape=shape
        )
        for at in range(part.start, part.stop, BLOCK):
            rows = range(at, min(at + BLOCK, part.stop))
            writer.add(_block(rows, pictures, known, codec, key))
        writer.finish(list(skipped) if part.start == 0 else [])
    record = {
        **{name: {} for name in ("content", "inputs", "config")},
        "state": "done",
        "started": utc_text(0),
        "extent": extent_of(manifest, 1),
    }
    (folder / "made.zarr" / "extract-targets.json").write_bytes(record_bytes(record))
    return MadeStore(url, str(folder / "images"))


def _picture(folder: Path, number: int) -> bytes:
    path = folder / f"{number}.jpg"
    write_picture(path, number, (WIDTH, HEIGHT))
    return path.read_bytes()


def _seen(data: bytes, side: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens (N, D) of a picture and its prior (L,)."""
    view_CSS = (
        view_pixels(decode_rgb(data), Box(0, 0, HEIGHT, WIDTH, flip=False), side).float() / 255
    )
    colour_LC = view_CSS.flatten(1).T
    generator = torch.Generator().manual_seed(0)
    turn_CD = torch.randn(3, width, generator=generator)
    patch_LD = (colour_LC - 0.5) @ turn_CD
    prior_L = (4 * (colour_LC - colour_LC.mean(dim=0)).norm(dim=1)).softmax(dim=0)
    return torch.cat([patch_LD.mean(dim=0, keepdim=True), patch_LD]), prior_L


def _block(
    rows: range,
    pictures: list[bytes],
    known: list[tuple[torch.Tensor, torch.Tensor]],
    codec: Codec,
    key: Callable[[int], str],
) -> UnitBlock:
    count, generator = len(rows), torch.Generator().manual_seed(rows.start)
    tokens_nND = torch.stack([known[row % PICTURES][0] for row in rows])
    tokens_nND = tokens_nND + 0.1 * torch.randn(tokens_nND.shape, generator=generator)
    codes_nNC, scale_nN = codec.encode(tokens_nND)
    prior_nL = torch.stack([known[row % PICTURES][1] for row in rows])
    prior: NDArray[np.generic] = (
        encode_prior(prior_nL) if codec.spec.needs_fit else prior_nL
    ).numpy()
    return UnitBlock(
        key=[key(row) for row in rows],
        codes=codes_nNC.numpy(),
        scale=None if scale_nN is None else scale_nN.numpy(),
        prior=prior,
        box=np.tile(np.array([0, 0, HEIGHT, WIDTH], np.float32), (count, 1)),
        flip=np.zeros(count, np.bool_),
        size=np.tile(np.array([HEIGHT, WIDTH], np.int32), (count, 1)),
        digest=np.array([digest(pictures[row % PICTURES]) for row in rows], np.uint64),
    )


def values_of(group: zarr.Group, name: str) -> NDArray[Any]:
    """Read a whole array of a unit."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])


def unit_with(arrays: Mapping[str, NDArray[Any]]) -> StoredUnit:
    """Return a unit of these arrays, in memory."""
    group = zarr.create_group(MemoryStore(), zarr_format=3)
    for name, values in arrays.items():
        group.create_array(name, data=values)
    return StoredUnit(group)


def targets_of(manifest: Manifest, shard: Shard) -> list[tuple[str, bytes]]:
    """Read the key and the record's bytes of each sample of a target shard."""
    table = load_index(manifest, shard)
    read = read_rows([(manifest.url_of(shard), table)], threads=0)
    return [(key, data) for key, (_, _, data) in zip(keys_of(table), read, strict=True)]


def write_alone(shards: Path, out: Path) -> None:
    """Copy target shards, with a member for each sample."""
    manifest = load_manifest(str(shards), kind="targets")
    layout, written = layout_of(manifest.common["identity"]), []
    for shard in manifest.shards:
        records = ((key, layout.from_bytes(data)) for key, data in targets_of(manifest, shard))
        samples = (
            Sample(key, {TARGET_EXTENSION: layout.to_bytes(np.array(record))})
            for key, record in records
        )
        one = write_shard(str(out), shard.name, samples)
        written.append(dataclasses.replace(one, details=shard.details))
    dataclasses.replace(manifest, folder=str(out), shards=tuple(written)).save()


def make_block(count: int, *, codec: str = "float16", patches: int = 4, width: int = 6):
    random = np.random.Generator(np.random.PCG64(count))
    tokens = torch.from_numpy(random.normal(size=(count, 1 + patches, width)).astype(np.float32))
    codes, scale = make_codec(codec).encode(tokens)
    return UnitBlock(
        key=[f"class/ä-{number}" for number in range(count)],
        codes=codes.numpy(),
        scale=None if scale is None else scale.numpy(),
        prior=random.random((count, patches), dtype=np.float32),
        box=random.random((count, 4), dtype=np.float32),
        flip=random.random(count) < 0.5,
        size=random.integers(1, 999, (count, 2), dtype=np.int32),
        digest=random.integers(0, 2**64, count, dtype=np.uint64),
    )


def rows_of(block: UnitBlock, start: int, stop: int) -> UnitBlock:
    values: dict[str, Any] = {
        field.name: getattr(block, field.name) for field in dataclasses.fields(block)
    }
    cut: dict[str, Any] = {
        name: None if value is None else value[start:stop] for name, value in values.items()
    }
    return dataclasses.replace(block, **cut)


def write(
    store: Path | str, block: UnitBlock, *, sizes: Iterable[int] = (), samples: int | None = None
) -> tuple[Unit, Mark]:
    """Write a block as one unit, split into blocks of the given sizes and the rest."""
    count = len(block.key)
    shard = Shard(
        name="x.tar",
        samples=count if samples is None else samples,
        bytes=0,
        sha256="5",
        index_sha256="",
    )
    unit = Unit(0, shard)
    writer = UnitWriter(
        str(store),
        unit,
        identity_hash="id",
        codec=make_codec("float16" if block.scale is None else "int8"),
        shape=block.codes.shape[1:],
    )
    start = 0
    for size in [*sizes, count]:
        writer.add(rows_of(block, start, start + size))
        start = min(count, start + size)
    return unit, writer.finish([])


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def files_and_times(store: Path) -> dict[str, tuple[bytes, int]]:
    """Everything but the record and reports: path -> (bytes, time of the last write)."""
    return {
        str(path.relative_to(store)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in store.rglob("*")
        if path.is_file()
        and path.name != "extract-targets.json"
        and path.parent != store / "progress"
    }


def identity_of(codec: str, patches: int, width: int) -> dict[str, dict[str, object]]:
    return build_identity(
        teacher={"grid": [1, patches], "width": width},
        preprocessing={},
        view_policy={},
        codec=parse_codec(codec).for_width(width).parameters(),
    )
