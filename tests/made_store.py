"""A target store of any size without a teacher, and the image shards it would be of.

Pictures are a few, repeated; targets are their patches' mean colours, turned by a fixed matrix,
plus noise of the row; priors prefer patches that differ from the picture's mean.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from milan_pipeline.codecs.interface import Codec, encode_prior
from milan_pipeline.codecs.registry import make_codec
from milan_pipeline.images.crops import view_pixels
from milan_pipeline.images.decode import decode_rgb, digest
from milan_pipeline.images.views import Box
from milan_pipeline.provenance.identity import build_identity, content_hash
from milan_pipeline.provenance.record import record_bytes, utc_text
from milan_pipeline.shards.manifest import Manifest
from milan_pipeline.shards.writer import Sample, write_shard
from milan_pipeline.targets.layout import UnitBlock, create_root
from milan_pipeline.targets.units import extent_of, list_units
from milan_pipeline.targets.writer import UnitWriter
from tests.conftest import write_picture

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
    skipped: tuple[dict[str, str], ...] = (),
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
        shape = (1 + side**2, codec.spec.code_width(width))
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
